package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// What processes have spent since they were started, together.
type usage struct {
	cpuSeconds float64
	// What is resident now, and the most that ever was.
	residentBytes, peakBytes int64
}

// The kernel's unit of times in /proc, whatever its own tick is.
const ticksPerSecond = 100

// usageOf the members of the run in this folder.
func usageOf(folder string) (usage, error) {
	var sum usage
	for member := range 3 {
		text, err := os.ReadFile(filepath.Join(folder, fmt.Sprintf("member-%d.pid", member)))
		if err != nil {
			return usage{}, err
		}
		pid, _, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
		one, err := usageOfProcess(filepath.Join("/proc", pid))
		if err != nil {
			return usage{}, fmt.Errorf("member-%d: %w", member, err)
		}
		sum.cpuSeconds += one.cpuSeconds
		sum.residentBytes += one.residentBytes
		sum.peakBytes += one.peakBytes
	}
	return sum, nil
}

func usageOfProcess(folder string) (usage, error) {
	stat, err := os.ReadFile(filepath.Join(folder, "stat"))
	if err != nil {
		return usage{}, err
	}
	ticks, err := cpuTicks(string(stat))
	if err != nil {
		return usage{}, err
	}
	status, err := os.ReadFile(filepath.Join(folder, "status"))
	if err != nil {
		return usage{}, err
	}
	found := usage{cpuSeconds: float64(ticks) / ticksPerSecond}
	for _, field := range []struct {
		name string
		into *int64
	}{{"VmRSS:", &found.residentBytes}, {"VmHWM:", &found.peakBytes}} {
		kibibytes, err := numberAfter(string(status), field.name)
		if err != nil {
			return usage{}, fmt.Errorf("%s: %w", folder, err)
		}
		*field.into = kibibytes << 10
	}
	return found, nil
}

// cpuTicks is user and system time. The name, in parentheses, may hold parentheses and spaces itself.
func cpuTicks(stat string) (int64, error) {
	fields := strings.Fields(stat[strings.LastIndex(stat, ")")+1:])
	if len(fields) < 13 {
		return 0, fmt.Errorf("no times in %q", stat)
	}
	user, err := strconv.ParseInt(fields[11], 10, 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseInt(fields[12], 10, 64)
	return user + system, err
}

// numberAfter a name at the beginning of a line.
func numberAfter(text, name string) (int64, error) {
	for line := range strings.Lines(text) {
		if rest, is := strings.CutPrefix(line, name); is && strings.TrimSpace(rest) != "" {
			return strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
		}
	}
	return 0, fmt.Errorf("no %s", name)
}
