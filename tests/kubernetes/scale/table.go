package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
)

// A figure with its name, of one run.
type figure struct {
	name  string
	value float64
}

// figures of a result, in the order in which they are told.
func (r result) figures() []figure {
	// First what is known best, and asked for most.
	all := []figure{
		{"creation of a configuration object p50, ms", r.CreateP50},
		{"creation of a configuration object p99, ms", r.CreateP99},
		{"requests that failed, and were sent again", float64(r.FailedRequests)},
	}
	for _, verb := range slices.SortedFunc(maps.Keys(r.APIP99), createdFirst) {
		all = append(all, figure{"API server " + verb + " p99, ms", r.APIP99[verb]})
	}
	for _, operation := range slices.Sorted(maps.Keys(r.StoreP99)) {
		all = append(all, figure{"API server to store " + operation + " p99, ms", r.StoreP99[operation]})
	}
	for _, phase := range r.Phases {
		all = append(all, figure{phase.Name + ", s", phase.Seconds})
		if phase.CPUSeconds > 0 {
			all = append(all, figure{phase.Name + ", store's CPU s", phase.CPUSeconds})
		}
	}
	all = append(all,
		figure{"writes to the store with leases alone, 1/s", r.SteadyWrites},
		figure{"revisions", float64(r.Revisions)},
		figure{"store's CPU in all, s", r.CPUSeconds},
		figure{"store's memory at most, MiB of three members", r.PeakMiB},
		figure{"store's memory at the end, MiB of three members", r.ResidentMiB},
		figure{"store's database, MiB of one member", r.DatabaseMiB},
	)
	if r.DiskWrittenMiB > 0 {
		all = append(all, figure{"written to the disk, MiB by all that ran", r.DiskWrittenMiB})
	}
	return all
}

// createdFirst is the order of verbs: that of creations, the others, and all together.
func createdFirst(a, b string) int {
	place := func(verb string) int {
		switch verb {
		case "POST":
			return 0
		case "all":
			return 2
		}
		return 1
	}
	return cmp.Or(cmp.Compare(place(a), place(b)), strings.Compare(a, b))
}

// What has to be known of the figures.
const notes = `
The creation of configuration objects is timed by its client, one by one. All that is said of the API server is by its
own histograms, of the whole run and of all of its clients, and exact to a bucket. "All" mixes lists of thousands of
pods with renewals of leases and with pages of 500, in numbers that are those of this load: what moves it may be the
share of each, and not how fast any of them is. Watches are in none of them.
`

// How often each node renews its lease: kwok does after a quarter of the 40 s that it lasts.
const renewalsPerSecond = 0.1

// renewed is an error where hardly all nodes can have renewed their leases: the load was less than it says.
func (r result) renewed() error {
	if wanted := float64(r.Nodes) * renewalsPerSecond; r.SteadyWrites < 0.9*wanted {
		return fmt.Errorf("%s: NOT ALL LEASES WERE RENEWED: %.1f writes/s with leases alone, where %d nodes make %.1f",
			r.System, r.SteadyWrites, r.Nodes, wanted)
	}
	return nil
}

// table has a column for each result, and where there are two, how the second stands to the first.
func table(results []result) string {
	var text strings.Builder
	var names []string
	values := make([]map[string]float64, len(results))
	for i, result := range results {
		values[i] = map[string]float64{}
		for _, figure := range result.figures() {
			if !slices.Contains(names, figure.name) {
				names = append(names, figure.name)
			}
			values[i][figure.name] = figure.value
		}
	}
	first := results[0]
	fmt.Fprintf(&text, "| %d nodes, %d pods, %d configuration objects |", first.Nodes, first.Pods, first.Configs)
	for _, result := range results {
		fmt.Fprintf(&text, " %s |", result.System)
	}
	rule := strings.Repeat("--:|", len(results))
	if len(results) == 2 {
		fmt.Fprintf(&text, " %s / %s |", results[1].System, first.System)
		rule += "--:|"
	}
	fmt.Fprintf(&text, "\n|---|%s\n", rule)
	for _, name := range names {
		fmt.Fprintf(&text, "| %s |", name)
		for i := range results {
			if value, there := values[i][name]; there {
				fmt.Fprintf(&text, " %.1f |", value)
			} else {
				text.WriteString(" |")
			}
		}
		if len(results) == 2 {
			if before, after := values[0][name], values[1][name]; before > 0 && after > 0 {
				fmt.Fprintf(&text, " %.2f |", after/before)
			} else {
				text.WriteString(" |")
			}
		}
		text.WriteString("\n")
	}
	return text.String()
}

// printTable of all lines of these files. Runs of different sizes are not beside each other, and of one that was not the
// load that it says to be the table is no success.
func printTable(out io.Writer, paths []string) error {
	var results []result
	for _, path := range paths {
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		defer file.Close()
		lines := bufio.NewScanner(file)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var one result
			if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			if len(results) > 0 && (one.Nodes != results[0].Nodes || one.Pods != results[0].Pods || one.Configs != results[0].Configs) {
				return fmt.Errorf("%s: runs of different sizes", path)
			}
			results = append(results, one)
		}
		if err := lines.Err(); err != nil {
			return err
		}
	}
	if len(results) == 0 {
		return errors.New("there are no results")
	}
	var wrong []error
	for _, one := range results {
		wrong = append(wrong, one.renewed())
	}
	_, err := io.WriteString(out, table(results)+notes)
	return errors.Join(append(wrong, err)...)
}
