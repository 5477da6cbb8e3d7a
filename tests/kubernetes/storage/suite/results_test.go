package main

import (
	"fmt"
	"strings"
	"testing"
)

const pack = "./pkg/storage/etcd3"

func event(action, name string) string {
	return `{"Action":"` + action + `","Package":"k8s.io/apiserver/pkg/storage/etcd3","Test":"` + name + `","Output":"said\n"}` + "\n"
}

func parsed(t *testing.T, events ...string) results {
	t.Helper()
	found, err := parse(strings.NewReader(strings.Join(events, "")))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestATestThatPassesOnEtcdOnlyFailsTheStage(t *testing.T) {
	etcd := parsed(t, event("run", "TestA"), event("pass", "TestA"), event("pass", "TestB/x"), event("pass", "TestB"))
	withServer := map[test]bool{{pack, "TestB"}: true}
	for what, mainstay := range map[string]results{
		"failed":  parsed(t, event("pass", "TestA"), event("output", "TestB/x"), event("fail", "TestB/x"), event("fail", "TestB")),
		"missing": parsed(t, event("pass", "TestA")),
		"cut off": parsed(t, event("pass", "TestA"), event("run", "TestB"), event("pass", "TestB/x")),
		"skipped": parsed(t, event("pass", "TestA"), event("skip", "TestB/x"), event("pass", "TestB")),
	} {
		err := compare(etcd, mainstay, withServer).verdict([]string{pack})
		if err == nil || !strings.Contains(err.Error(), "TestB") || strings.Contains(err.Error(), "TestA") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestTheTableCountsWhatRan(t *testing.T) {
	etcd := parsed(t, event("pass", "TestA"), event("fail", "TestB"), event("skip", "TestC"))
	mainstay := parsed(t, event("pass", "TestA"), event("fail", "TestB"), event("skip", "TestC"))
	report := compare(etcd, mainstay, map[test]bool{{pack, "TestA"}: true})
	if err := report.verdict([]string{pack}); err != nil {
		t.Error("what fails on both fails nothing:", err)
	}
	table := report.table("etcd 3.6")
	for _, wanted := range []string{"| pkg/storage/etcd3 | 2 | 1 | 1 | 1 |", "| all | 2 | 1 | 1 | 1 |", "did not pass on etcd:\n  ./pkg/storage/etcd3 TestB"} {
		if !strings.Contains(table, wanted) {
			t.Errorf("no %q in\n%s", wanted, table)
		}
	}
}

func TestNothingProvesNothing(t *testing.T) {
	all := parsed(t, event("pass", "TestA"))
	if err := compare(all, all, nil).verdict(nil); err == nil {
		t.Error("no test had a server")
	}
	withServer := map[test]bool{{pack, "TestA"}: true}
	if err := compare(all, all, withServer).verdict([]string{pack, "./pkg/other"}); err == nil {
		t.Error("a package has no test")
	}
	if _, err := parse(strings.NewReader(`{"Action":"build-fail","Output":"undefined: x\n"}`)); err == nil || !strings.Contains(err.Error(), "undefined: x") {
		t.Error("what does not compile is no success:", err)
	}
}

func TestAPackageThatFailsByItselfIsADifference(t *testing.T) {
	good := []string{event("pass", "TestA"), event("pass", "")}
	bad := []string{event("pass", "TestA"), event("output", ""), event("fail", "")}
	withServer := map[test]bool{{pack, "TestA"}: true}
	err := compare(parsed(t, good...), parsed(t, bad...), withServer).verdict([]string{pack})
	if err == nil || !strings.Contains(err.Error(), pack+" as a whole") || !strings.Contains(err.Error(), "said") {
		t.Error("after its tests, as by a race or a leak:", err)
	}
	report := compare(parsed(t, bad...), parsed(t, bad...), withServer)
	if err := report.verdict([]string{pack}); err != nil {
		t.Error("on both it is none:", err)
	}
	if table := report.table("etcd"); !strings.Contains(table, "| all | 1 | 1 | 1 | 1 |") || !strings.Contains(table, "did not pass on etcd:\n  "+pack) {
		t.Error(table)
	}
	if err := compare(parsed(t, bad...), parsed(t, good...), withServer).verdict([]string{pack}); err != nil {
		t.Error("on etcd alone it is none:", err)
	}
	// Where a test of it failed, it is that which is tried again.
	first := parsed(t, event("fail", "TestA"), event("fail", ""))
	first.takeSecondTry(parsed(t, good...))
	if err := compare(parsed(t, good...), first, withServer).verdict([]string{pack}); err != nil {
		t.Error("at the second try it passed:", err)
	}
	first.takeSecondTry(parsed(t, bad...))
	if compare(parsed(t, good...), first, withServer).verdict([]string{pack}) == nil {
		t.Error("its tests passed at the second try, and it did not")
	}
}

func TestASecondTryIsTold(t *testing.T) {
	first := parsed(t, event("pass", "TestA"), event("fail", "TestB/x"), event("pass", "TestB/y"), event("fail", "TestB"))
	if failed := first.failedIn(pack); len(failed) != 1 || failed[0] != "TestB" {
		t.Fatal(failed)
	}
	first.takeSecondTry(parsed(t, event("pass", "TestB/x"), event("pass", "TestB/y"), event("pass", "TestB")))
	all := parsed(t, event("pass", "TestA"), event("pass", "TestB/x"), event("pass", "TestB/y"), event("pass", "TestB"))
	report := compare(all, first, map[test]bool{{pack, "TestB"}: true})
	if err := report.verdict([]string{pack}); err != nil {
		t.Error(err)
	}
	if len(report.secondTry) != 2 || !strings.Contains(report.table("etcd"), "TestB/x on mainstay") {
		t.Error(report.secondTry)
	}
}

func TestASecondTryIsToPassEachTime(t *testing.T) {
	all := parsed(t, event("pass", "TestA"))
	for what, again := range map[string][]string{
		"failed before it passed": {event("run", "TestA"), event("fail", "TestA"), event("run", "TestA"), event("pass", "TestA")},
		"failed after it passed":  {event("run", "TestA"), event("pass", "TestA"), event("run", "TestA"), event("fail", "TestA")},
		"did not end at last":     {event("run", "TestA"), event("pass", "TestA"), event("run", "TestA")},
	} {
		first := parsed(t, event("fail", "TestA"))
		first.takeSecondTry(parsed(t, again...))
		if err := compare(all, first, map[test]bool{{pack, "TestA"}: true}).verdict(nil); err == nil || !strings.Contains(err.Error(), "TestA") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestManySecondTriesAreADifference(t *testing.T) {
	// So many tests, of which the first ones pass only at the second try. Parts of a test are not counted by themselves.
	tried := func(again int) results {
		var first, second []string
		for i := range 8 {
			for _, name := range []string{fmt.Sprintf("Test%d/x", i), fmt.Sprintf("Test%d/y", i), fmt.Sprintf("Test%d", i)} {
				if i < again {
					first, second = append(first, event("fail", name)), append(second, event("pass", name))
				} else {
					first = append(first, event("pass", name))
				}
			}
		}
		found := parsed(t, first...)
		if again > 0 {
			found.takeSecondTry(parsed(t, second...))
		}
		return found
	}
	withServer := map[test]bool{{pack, "Test0"}: true}
	for _, row := range []struct {
		etcd, mainstay int
		good           bool
	}{{0, 3, true}, {0, 4, false}, {1, 4, true}, {1, 5, false}, {5, 0, true}} {
		if err := compare(tried(row.etcd), tried(row.mainstay), withServer).verdict(nil); (err == nil) != row.good {
			t.Errorf("%d on etcd, %d on mainstay: %v", row.etcd, row.mainstay, err)
		}
	}
}
