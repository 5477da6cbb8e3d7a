package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// A histogram of latencies: how many took at most so many seconds.
type histogram map[float64]float64

// histograms adds up the histogram of this name by one of its labels.
func histograms(text, name, label string) (map[string]histogram, error) {
	found := map[string]histogram{}
	for line := range strings.Lines(text) {
		rest, is := strings.CutPrefix(line, name+"_bucket{")
		if !is {
			continue
		}
		labels, value, is := strings.Cut(strings.TrimSpace(rest), "} ")
		if !is {
			return nil, fmt.Errorf("not as expected: %q", line)
		}
		count, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
		bound, err := strconv.ParseFloat(labelValue(labels, "le"), 64)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
		key := labelValue(labels, label)
		if found[key] == nil {
			found[key] = histogram{}
		}
		found[key][bound] += count
	}
	return found, nil
}

// labelValue takes `x` out of `a="b",label="x"`. The API server's own have no quotes in them.
func labelValue(labels, label string) string {
	for pair := range strings.SplitSeq(labels, `",`) {
		if value, is := strings.CutPrefix(pair, label+`="`); is {
			return strings.TrimSuffix(value, `"`)
		}
	}
	return ""
}

// since is what came after an earlier look.
func (h histogram) since(earlier histogram) histogram {
	difference := histogram{}
	for bound, count := range h {
		difference[bound] = count - earlier[bound]
	}
	return difference
}

// plus adds another to it.
func (h histogram) plus(other histogram) histogram {
	sum := histogram{}
	for _, one := range []histogram{h, other} {
		for bound, count := range one {
			sum[bound] += count
		}
	}
	return sum
}

func (h histogram) count() float64 { return h[math.Inf(1)] }

// quantile in seconds, as Prometheus has it: even within a bucket, and not beyond the last bound. NaN if it is empty.
func (h histogram) quantile(q float64) float64 {
	var bounds []float64
	for bound := range h {
		bounds = append(bounds, bound)
	}
	slices.Sort(bounds)
	rank := q * h.count()
	if h.count() == 0 {
		return math.NaN()
	}
	lower, below := 0.0, 0.0
	for _, bound := range bounds {
		if h[bound] >= rank {
			if math.IsInf(bound, 1) || h[bound] == below {
				return lower
			}
			return lower + (bound-lower)*(rank-below)/(h[bound]-below)
		}
		lower, below = bound, h[bound]
	}
	return lower
}
