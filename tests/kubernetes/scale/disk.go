package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// What the kernel counts in, whatever the disk's own sectors are.
const sectorBytes = 512

// The block device below a folder, counted as a whole: what others write meanwhile counts, too. What processes are
// charged for says nothing of the disk, as soon as they write into what is written already: whole large pages count.
type disk struct {
	folder string // any of the file system
	stat   string // the device's counters
}

// diskOf a folder. There is none the kernel counts for where the folder is in memory, over a network, or on a file
// system that is spread over several.
func diskOf(folder string) (disk, bool) {
	var about unix.Stat_t
	if err := unix.Stat(folder, &about); err != nil {
		return disk{}, false
	}
	stat := filepath.Join("/sys/dev/block", fmt.Sprintf("%d:%d", unix.Major(about.Dev), unix.Minor(about.Dev)), "stat")
	_, err := os.Stat(stat)
	return disk{folder, stat}, err == nil
}

// writtenBytes since the machine was started. What waits in memory is written out first: it counts for what came before.
func (d disk) writtenBytes() (int64, error) {
	folder, err := os.Open(d.folder)
	if err != nil {
		return 0, err
	}
	defer folder.Close()
	if err := unix.Syncfs(int(folder.Fd())); err != nil {
		return 0, fmt.Errorf("%s: %w", d.folder, err)
	}
	text, err := os.ReadFile(d.stat)
	if err != nil {
		return 0, err
	}
	sectors, err := sectorsWritten(string(text))
	if err != nil {
		return 0, fmt.Errorf("%s: %w", d.stat, err)
	}
	return sectors * sectorBytes, nil
}

// sectorsWritten is the seventh of the numbers.
func sectorsWritten(stat string) (int64, error) {
	fields := strings.Fields(stat)
	if len(fields) < 7 {
		return 0, fmt.Errorf("not as expected: %q", stat)
	}
	return strconv.ParseInt(fields[6], 10, 64)
}
