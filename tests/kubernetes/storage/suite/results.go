package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// The module whose tests these are; packages are told without it.
const module = "k8s.io/apiserver/"

// A test, or one that runs inside of another.
type test struct {
	pack string // as in "./pkg/storage/etcd3"
	name string // as in "TestList/first_page"; "" for a package that failed where none of its tests did
}

// outermost is the test that a test runs inside of, or the test itself.
func outermost(name string) string {
	name, _, _ = strings.Cut(name, "/")
	return name
}

// How a test ended, "pass", "fail" or "skip", and what it printed.
type result struct {
	action  string
	printed strings.Builder
	// It failed at first.
	secondTry bool
}

// A test that did not end has no action.
type results map[test]*result

// parse reads what `go test -json` prints.
func parse(stream io.Reader) (results, error) {
	found := results{}
	var outside strings.Builder // of any test: what does not compile, and panics
	failed := false
	packages := results{} // what failed as a whole, and what was printed there
	lines := bufio.NewScanner(stream)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var event struct{ Action, Package, Test, Output string }
		if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
			return nil, fmt.Errorf("%q: %w", lines.Text(), err)
		}
		if event.Test == "" {
			outside.WriteString(event.Output)
			failed = failed || event.Action == "build-fail"
		}
		key := test{"./" + strings.TrimPrefix(event.Package, module), event.Test}
		if event.Test == "" {
			if packages[key] == nil {
				packages[key] = &result{}
			}
			packages[key].printed.WriteString(event.Output)
			if event.Action == "fail" {
				packages[key].action = event.Action
			}
			continue
		}
		if found[key] == nil {
			found[key] = &result{}
		}
		switch result := found[key]; event.Action {
		case "output":
			result.printed.WriteString(event.Output)
		case "run", "pass", "fail", "skip":
			// Of a test that runs more than once each run counts, and one that has begun again has yet to end.
			if result.action != "fail" {
				result.action = strings.TrimPrefix(event.Action, "run")
			}
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if failed || len(found) == 0 {
		return nil, errors.New("the tests could not be built or run:\n" + outside.String())
	}
	for key, result := range packages {
		if result.action == "fail" && len(found.failedIn(key.pack)) == 0 {
			found[key] = result
		}
	}
	return found, nil
}

// failedIn names the outermost tests of a package that did not pass, and were not skipped. Of one that failed as a whole
// it names none: there is nothing to try again.
func (r results) failedIn(pack string) []string {
	names := map[string]bool{}
	for key, result := range r {
		if key.pack == pack && key.name != "" && result.action != "pass" && result.action != "skip" {
			names[outermost(key.name)] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// takeSecondTry puts what passed at another try in place of what failed. A package that now fails as a whole has failed.
func (r results) takeSecondTry(again results) {
	for key, result := range again {
		first := r[key]
		if result.action == "pass" && (first == nil || first.action != "pass") {
			result.secondTry = true
			r[key] = result
		}
		if key.name == "" {
			r[key] = result
		}
	}
}

// A row of the table.
type row struct {
	ran, withServer, etcd, mainstay int
}

func (r *row) add(other row) {
	r.ran += other.ran
	r.withServer += other.withServer
	r.etcd += other.etcd
	r.mainstay += other.mainstay
}

// How many more tests than of etcd may pass on mainstay only when they run again: more is no busy machine.
const secondTries = 3

// What two runs of the same tests amount to.
type report struct {
	rows map[string]*row
	// Tests that passed on etcd and not on mainstay, with what they printed there.
	differ []string
	// Tests that did not pass on etcd.
	failOnEtcd []string
	secondTry  []string
	// Outermost tests of which something needed a second try.
	againOnEtcd, againOnMainstay map[test]bool
}

// compare holds each test against itself. Skipped tests are not counted: they ran nowhere.
func compare(etcd, mainstay results, withServer map[test]bool) report {
	report := report{rows: map[string]*row{}, againOnEtcd: map[test]bool{}, againOnMainstay: map[test]bool{}}
	all := map[test]bool{}
	for key := range etcd {
		all[key] = true
	}
	for key := range mainstay {
		all[key] = true
	}
	keys := slices.SortedFunc(maps.Keys(all), func(a, b test) int {
		return strings.Compare(a.pack+" "+a.name, b.pack+" "+b.name)
	})
	for _, key := range keys {
		name := key.pack + " " + key.name
		onEtcd, onMainstay := or(etcd[key]), or(mainstay[key])
		if onEtcd.action == "skip" && onMainstay.action == "skip" {
			continue
		}
		// A package that failed by itself is no test that ran, and has no entry where it did not fail.
		if key.name == "" {
			if onEtcd.action == "fail" {
				report.failOnEtcd = append(report.failOnEtcd, key.pack)
			} else {
				report.differ = append(report.differ, key.pack+" as a whole\n"+lastLines(onMainstay.printed.String(), 30))
			}
			continue
		}
		if report.rows[key.pack] == nil {
			report.rows[key.pack] = &row{}
		}
		row := report.rows[key.pack]
		row.ran++
		if withServer[test{key.pack, outermost(key.name)}] {
			row.withServer++
		}
		if onEtcd.action == "pass" {
			row.etcd++
		} else {
			report.failOnEtcd = append(report.failOnEtcd, name)
		}
		if onMainstay.action == "pass" {
			row.mainstay++
		} else if onEtcd.action == "pass" {
			report.differ = append(report.differ, name+"\n"+lastLines(onMainstay.printed.String(), 30))
		}
		outer := test{key.pack, outermost(key.name)}
		if onEtcd.secondTry {
			report.secondTry = append(report.secondTry, name+" on etcd")
			report.againOnEtcd[outer] = true
		}
		if onMainstay.secondTry {
			report.secondTry = append(report.secondTry, name+" on mainstay")
			report.againOnMainstay[outer] = true
		}
	}
	slices.Sort(report.secondTry)
	return report
}

func or(found *result) *result {
	if found == nil {
		return &result{}
	}
	return found
}

func (r report) table(etcd string) string {
	var text strings.Builder
	fmt.Fprintf(&text, "| package | tests | of them with a server | passed on %s | passed on mainstay |\n|---|--:|--:|--:|--:|\n", etcd)
	var sum row
	line := func(name string, row row) {
		fmt.Fprintf(&text, "| %s | %d | %d | %d | %d |\n", name, row.ran, row.withServer, row.etcd, row.mainstay)
	}
	for _, pack := range slices.Sorted(maps.Keys(r.rows)) {
		line(strings.TrimPrefix(pack, "./"), *r.rows[pack])
		sum.add(*r.rows[pack])
	}
	line("all", sum)
	for title, names := range map[string][]string{
		"passed at the second try": r.secondTry, "did not pass on etcd": r.failOnEtcd,
	} {
		if len(names) > 0 {
			fmt.Fprintf(&text, "\n%s:\n  %s\n", title, strings.Join(names, "\n  "))
		}
	}
	return text.String()
}

// verdict is an error where mainstay is not to the tests what etcd is, or is so only at the second try, or where they
// say nothing: in each of these packages there has to be one that has a server and passes.
func (r report) verdict(packages []string) error {
	var sum row
	for _, row := range r.rows {
		sum.add(*row)
	}
	switch {
	case len(r.differ) > 0:
		return fmt.Errorf("%d tests pass on etcd and not on mainstay:\n%s", len(r.differ), strings.Join(r.differ, "\n"))
	case len(r.againOnMainstay) > len(r.againOnEtcd)+secondTries:
		return fmt.Errorf("%d tests pass on mainstay only at the second try, and %d on etcd:\n  %s", len(r.againOnMainstay),
			len(r.againOnEtcd), strings.Join(r.secondTry, "\n  "))
	case sum.withServer == 0 || sum.etcd == 0:
		return errors.New("no test with a server ran and passed on etcd")
	}
	for _, pack := range packages {
		if row := r.rows[pack]; row == nil || row.withServer == 0 || row.etcd == 0 {
			return fmt.Errorf("%s: no test with a server ran and passed on etcd", pack)
		}
	}
	return nil
}

func lastLines(text string, count int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return "    " + strings.Join(lines[max(0, len(lines)-count):], "\n    ")
}
