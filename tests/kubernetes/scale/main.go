// Command scale fills a control plane with nodes, configuration and pods, and measures how long that takes and what its
// store spends on it.
//
//	scale measure -system mainstay -nodes 1000 ...   prints a line of JSON
//	scale table FILE...                              prints such lines beside each other
//
// tests/kubernetes/scale/run.sh runs it on mainstay and on etcd, with the variables of in_run (tests/kubernetes/lib.sh).
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// What there is to be.
type size struct {
	nodes, pods, configs int
	// How long it is left alone at the end, with nothing but the nodes' leases.
	steady time.Duration
	// How many requests are sent at once.
	parallel int
	// The longest that any step may take.
	patience time.Duration
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, arguments []string) error {
	switch {
	case len(arguments) > 1 && arguments[0] == "table":
		return printTable(os.Stdout, arguments[1:])
	case len(arguments) > 0 && arguments[0] == "measure":
		var size size
		flags := flag.NewFlagSet("measure", flag.ContinueOnError)
		system := flags.String("system", "", "what is told as the name of the store")
		node := flags.String("node", "", "the manifest of a node, called NAME")
		out := flags.String("out", "", "where the line is added")
		flags.IntVar(&size.nodes, "nodes", 1000, "nodes with their leases")
		flags.IntVar(&size.pods, "pods", 10_000, "pods of Deployments of 100")
		flags.IntVar(&size.configs, "configs", 50_000, "ConfigMaps and, every fifth, Secrets of 1 KiB")
		flags.DurationVar(&size.steady, "steady", time.Minute, "how long the leases alone are watched at the end")
		flags.IntVar(&size.parallel, "parallel", 16, "how many requests are sent at once")
		flags.DurationVar(&size.patience, "patience", 30*time.Minute, "the longest that any step may take")
		if err := flags.Parse(arguments[1:]); err != nil {
			return err
		}
		if *system == "" || *node == "" || *out == "" || size.nodes < 1 || size.pods < 1 || size.configs < 1 || size.parallel < 1 {
			return errors.New("measure: needs -system, -node and -out, and at least one of everything")
		}
		result, err := measure(ctx, *system, *node, size)
		if err != nil {
			return err
		}
		return appendLine(*out, result)
	}
	return errors.New("usage: scale measure -system NAME -node FILE -out FILE [...] | scale table FILE...")
}

func appendLine(path string, result result) error {
	line, err := json.Marshal(result)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = file.Write(append(line, '\n'))
	return errors.Join(err, file.Close())
}
