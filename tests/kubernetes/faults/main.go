// Command faults loads a control plane while its store is hurt, and then looks for what was lost.
//
//	faults links 20001=20002 ...   carries the connections between the members, and can cut members off
//	faults load -seed 7            loads and hurts; fails where something is lost, back, or does not converge
//
// tests/kubernetes/faults/stage.sh runs both, with the variables of in_run (tests/kubernetes/lib.sh).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"k8s.io/klog/v2"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "faults:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, arguments []string) error {
	folder := os.Getenv("KUBERNETES_RUN")
	if folder == "" {
		return errors.New("KUBERNETES_RUN is not set: this is run by tests/kubernetes/run.sh")
	}
	switch {
	case len(arguments) > 0 && arguments[0] == "links":
		return serveLinks(ctx, folder, arguments[1:])
	case len(arguments) > 0 && arguments[0] == "load":
		flags := flag.NewFlagSet("load", flag.ContinueOnError)
		seed := flags.Uint64("seed", 1, "decides the order of the faults, who is hit and for how long")
		rounds := flags.Int("rounds", 1, "how often each fault happens")
		writers := flags.Int("writers", 4, "how many clients write at once")
		if err := flags.Parse(arguments[1:]); err != nil {
			return err
		}
		return load(ctx, folder, *seed, *rounds, *writers)
	}
	return errors.New("usage: faults links PORT=PORT... | faults load [-seed 7] [-rounds 1] [-writers 4]")
}

// What must not be and was, in the order in which it was found.
type violations struct {
	mutex sync.Mutex
	found []string
}

func (v *violations) add(format string, values ...any) {
	v.mutex.Lock()
	defer v.mutex.Unlock()
	text := fmt.Sprintf(format, values...)
	fmt.Println("  VIOLATION:", text)
	v.found = append(v.found, text)
}

func (v *violations) count() int {
	v.mutex.Lock()
	defer v.mutex.Unlock()
	return len(v.found)
}

func load(ctx context.Context, folder string, seed uint64, rounds, writers int) error {
	// What informers would say of their broken watches is counted.
	klog.LogToStderr(false)
	klog.SetOutput(io.Discard)

	faults := plan(seed, rounds)
	fmt.Printf("  seed %d: %s\n", seed, inShort(faults))

	found := &violations{}
	store, err := openStore(folder)
	if err != nil {
		return err
	}
	defer store.close()
	work, err := startWork(ctx, seed, rounds, writers, found)
	if err != nil {
		return err
	}
	for _, fault := range faults {
		if err = store.suffer(ctx, fault); err != nil {
			break
		}
	}
	if err == nil {
		err = work.goOn(ctx, store)
	}
	work.stop()
	if err != nil {
		return fmt.Errorf("seed %d: %w", seed, err)
	}
	for _, wrong := range work.counts.unserved("create", "update", "delete", "list", "pages") {
		found.add("all was well for %v, and meanwhile %s", calmFor, wrong)
	}

	started := time.Now()
	if err := work.converge(ctx); err != nil {
		found.add("%v", err)
	}
	fmt.Printf("  %6d ms  until all had converged\n", time.Since(started).Milliseconds())
	if err := work.check(ctx, store); err != nil {
		return fmt.Errorf("seed %d: %w", seed, err)
	}
	fmt.Print(work.summary())
	work.cleanUp()
	started = time.Now()
	if err := work.vanish(ctx, store); err != nil {
		found.add("%v", err)
	}
	fmt.Printf("  %6d ms  until nothing of it was left\n", time.Since(started).Milliseconds())
	if count := found.count(); count > 0 {
		return fmt.Errorf("seed %d: %d violations", seed, count)
	}
	return nil
}

// socket is where the links are told what to cut.
func socket(folder string) string { return filepath.Join(folder, "links.sock") }
