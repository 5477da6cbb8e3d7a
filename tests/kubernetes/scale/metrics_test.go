package main

import (
	"math"
	"testing"
)

const text = `# HELP x_bucket{ not a series
x_bucket{resource="pods",verb="LIST",le="0.1"} 10
x_bucket{resource="pods",verb="LIST",le="0.2"} 20
x_bucket{resource="pods",verb="LIST",le="+Inf"} 20
x_bucket{resource="nodes",verb="LIST",le="0.1"} 0
x_bucket{resource="nodes",verb="LIST",le="0.2"} 80
x_bucket{resource="nodes",verb="LIST",le="+Inf"} 80
x_bucket{resource="nodes",verb="GET",le="0.1"} 5
x_bucket{resource="nodes",verb="GET",le="+Inf"} 10
x_sum{resource="nodes",verb="GET"} 3
xy_bucket{resource="nodes",verb="GET",le="0.1"} 7
`

func TestHistogramsAreAddedUpByALabel(t *testing.T) {
	found, err := histograms(text, "x", "verb")
	if err != nil {
		t.Fatal(err)
	}
	if len(found) != 2 || found["LIST"].count() != 100 || found["LIST"][0.1] != 10 || found["GET"].count() != 10 {
		t.Errorf("%v", found)
	}
	if all := found["LIST"].plus(found["GET"]); all.count() != 110 || all[0.1] != 15 {
		t.Errorf("%v", all)
	}
	if later := found["LIST"].since(histogram{0.1: 10, 0.2: 20, math.Inf(1): 20}); later.count() != 80 || later[0.1] != 0 {
		t.Errorf("%v", later)
	}
	if _, err := histograms(`x_bucket{le="a"} 1`, "x", "verb"); err == nil {
		t.Error("no bound")
	}
}

func TestQuantilesAreWithinTheirBucket(t *testing.T) {
	h := histogram{0.1: 10, 0.2: 90, math.Inf(1): 100}
	for q, wanted := range map[float64]float64{0.05: 0.05, 0.1: 0.1, 0.5: 0.15, 0.99: 0.2} {
		if found := h.quantile(q); math.Abs(found-wanted) > 1e-9 {
			t.Errorf("of %v: %v, not %v", q, found, wanted)
		}
	}
	if !math.IsNaN(histogram{}.quantile(0.99)) {
		t.Error("of nothing there is none")
	}
}

func TestTimesAreFoundBehindAnyName(t *testing.T) {
	rest := "S 1 2 3 4 -1 4194560 100 200 1 2 314 159 26 5 20 0 7 0 1234"
	for _, name := range []string{"(etcd)", "(a) b (c)"} {
		if ticks, err := cpuTicks("42 " + name + " " + rest); err != nil || ticks != 473 {
			t.Errorf("%s: %d, %v", name, ticks, err)
		}
	}
	if _, err := cpuTicks("42 (etcd) S 1"); err == nil {
		t.Error("there are no times")
	}
	if _, err := usageOfProcess("/proc/self"); err != nil {
		t.Error(err)
	}
}
