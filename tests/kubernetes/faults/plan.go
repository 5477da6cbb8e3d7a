package main

import (
	"math/rand/v2"
	"strings"
	"time"
)

// A fault of the store, or what its operators do to it.
type fault struct {
	kind kind
	// Which of those it may hit, counted through.
	victim int
	// How long it holds.
	hold time.Duration
	// How long nothing happens afterwards.
	quiet time.Duration
}

type kind string

const (
	killLeader    kind = "kill-leader"
	killFollower  kind = "kill-follower"
	isolateLeader kind = "isolate-leader"
	restartAll    kind = "restart-all"
	compact       kind = "compact"
	defragment    kind = "defragment"
	saveSnapshot  kind = "save-snapshot"
	restartAPI    kind = "restart-apiserver"
)

// plan has each kind once a round, in an order that the seed decides, as everything else of it. What happens to the
// clients' requests meanwhile is decided by nobody.
func plan(seed uint64, rounds int) []fault {
	dice := rand.New(rand.NewPCG(seed, 0))
	between := func(least, most time.Duration) time.Duration {
		return least + time.Duration(dice.Int64N(int64(most-least)))
	}
	var faults []fault
	for range rounds {
		kinds := []kind{killLeader, killFollower, isolateLeader, restartAll, compact, defragment, saveSnapshot, restartAPI}
		dice.Shuffle(len(kinds), func(i, j int) { kinds[i], kinds[j] = kinds[j], kinds[i] })
		for _, kind := range kinds {
			faults = append(faults, fault{
				kind:   kind,
				victim: dice.IntN(6), // of two or three, each as often
				hold:   between(3*time.Second, 9*time.Second),
				quiet:  between(2*time.Second, 5*time.Second),
			})
		}
	}
	return faults
}

func inShort(faults []fault) string {
	var names []string
	for _, fault := range faults {
		names = append(names, string(fault.kind))
	}
	return strings.Join(names, ", ")
}
