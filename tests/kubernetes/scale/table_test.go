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
		{System: "etcd", Nodes: 10, Pods: 100, Configs: 500, Phases: []phase{{"nodes", 2, 4}}, CPUSeconds: 8, APIP99: map[string]float64{"PUT": 20}},
		{System: "mainstay", Nodes: 10, Pods: 100, Configs: 500, Phases: []phase{{"nodes", 1, 2}}, CPUSeconds: 4},
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
		"| API server PUT p99, ms | 20.0 | | |",
		"| store's CPU in all, s | 8.0 | 4.0 | 0.50 |",
	} {
		if !strings.Contains(text.String(), line+"\n") {
			t.Errorf("no %q in\n%s", line, &text)
		}
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
