package main

import (
	"maps"
	"reflect"
	"slices"
	"testing"
)

func TestASeedIsAPlan(t *testing.T) {
	if !reflect.DeepEqual(plan(7, 2), plan(7, 2)) {
		t.Error("the same seed is another plan")
	}
	if reflect.DeepEqual(plan(7, 2), plan(8, 2)) {
		t.Error("another seed is the same plan")
	}
	times := map[kind]int{}
	for _, fault := range plan(7, 3) {
		times[fault.kind]++
	}
	if len(times) != 8 || slices.ContainsFunc(slices.Collect(maps.Values(times)), func(count int) bool { return count != 3 }) {
		t.Errorf("in three rounds: %v", times)
	}
}
