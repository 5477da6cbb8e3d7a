package main

import (
	"bufio"
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
	var all []figure
	for _, phase := range r.Phases {
		all = append(all, figure{phase.Name + ", s", phase.Seconds})
		if phase.CPUSeconds > 0 {
			all = append(all, figure{phase.Name + ", store's CPU s", phase.CPUSeconds})
		}
	}
	all = append(all, figure{"creation of a configuration object p50, ms", r.CreateP50}, figure{"creation of a configuration object p99, ms", r.CreateP99})
	for _, verb := range slices.Sorted(maps.Keys(r.APIP99)) {
		all = append(all, figure{"API server " + verb + " p99, ms", r.APIP99[verb]})
	}
	for _, operation := range slices.Sorted(maps.Keys(r.StoreP99)) {
		all = append(all, figure{"API server to store " + operation + " p99, ms", r.StoreP99[operation]})
	}
	return append(all,
		figure{"writes to the store with leases alone, 1/s", r.SteadyWrites},
		figure{"revisions", float64(r.Revisions)},
		figure{"store's CPU in all, s", r.CPUSeconds},
		figure{"store's memory at most, MiB of three members", r.PeakMiB},
		figure{"store's memory at the end, MiB of three members", r.ResidentMiB},
		figure{"store's database, MiB of one member", r.DatabaseMiB},
		figure{"written to the disk, MiB by three members", r.WrittenMiB},
	)
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

// printTable of all lines of these files. Runs of different sizes are not beside each other.
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
	_, err := io.WriteString(out, table(results))
	return err
}
