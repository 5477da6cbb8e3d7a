package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTheTableHoldsTwoRunsBesideEachOther(t *testing.T) {
	file := filepath.Join(t.TempDir(), "results")
	for _, one := range []result{
		{System: "etcd", Nodes: 10, Pods: 100, Configs: 500, Phases: []phase{{"nodes", 2, 4}}, CPUSeconds: 8, APIP99: map[string]float64{"LIST": 20, "POST": 10, "all": 30}, SteadyWrites: 1},
		{System: "mainstay", Nodes: 10, Pods: 100, Configs: 500, Phases: []phase{{"nodes", 1, 2}}, CPUSeconds: 4, SteadyWrites: 0.95, FailedRequests: 3},
	} {
		if err := appendLine(file, one); err != nil {
			t.Fatal(err)
		}
	}
	var text strings.Builder
	if err := printTable(&text, []string{file}); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"| 10 nodes, 100 pods, 500 configuration objects | etcd | mainstay | mainstay / etcd |",
		"| nodes, s | 2.0 | 1.0 | 0.50 |",
		"| nodes, store's CPU s | 4.0 | 2.0 | 0.50 |",
		"| requests that failed, and were sent again | 0.0 | 3.0 | |",
		"| API server POST p99, ms | 10.0 | | |\n| API server LIST p99, ms | 20.0 | | |\n| API server all p99, ms | 30.0 | | |",
		"| store's CPU in all, s | 8.0 | 4.0 | 0.50 |",
	} {
		if !strings.Contains(text.String(), line+"\n") {
			t.Errorf("no %q in\n%s", line, &text)
		}
	}

	if strings.Contains(text.String(), "written to the disk") {
		t.Error("what was not counted is told")
	}

	if err := appendLine(file, result{System: "idle", Nodes: 10, Pods: 100, Configs: 500, SteadyWrites: 0.8}); err != nil {
		t.Fatal(err)
	}
	text.Reset()
	if err := printTable(&text, []string{file}); err == nil || !strings.Contains(err.Error(), "idle: NOT ALL LEASES WERE RENEWED: 0.8") {
		t.Error("leases were not renewed:", err)
	}
	if !strings.Contains(text.String(), "| etcd | mainstay | idle |") {
		t.Error("no table of a run that was not as it says")
	}

	if err := appendLine(file, result{System: "mainstay", Nodes: 11}); err != nil {
		t.Fatal(err)
	}
	if err := printTable(&text, []string{file}); err == nil {
		t.Error("runs of different sizes are no comparison")
	}
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := printTable(&text, []string{file}); err == nil {
		t.Error("nothing was measured")
	}
}
