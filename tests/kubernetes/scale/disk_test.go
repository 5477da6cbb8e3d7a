package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestSectorsAreFoundByTheirPlace(t *testing.T) {
	const stat = " 2541554   195824 150170186  3517342  3520818   412968 345928464   802603        0   437316\n"
	if sectors, err := sectorsWritten(stat); err != nil || sectors != 345928464 {
		t.Error(sectors, err)
	}
	if _, err := sectorsWritten("1 2 3"); err == nil {
		t.Error("there is no seventh")
	}
}

func TestWhatIsWrittenIsCounted(t *testing.T) {
	folder := t.TempDir()
	disk, counted := diskOf(folder)
	if !counted {
		t.Skip("a folder in memory has no disk, and nothing can be shown")
	}
	before, err := disk.writtenBytes()
	if err != nil {
		t.Fatal(err)
	}
	const size = 4 << 20
	if err := os.WriteFile(filepath.Join(folder, "file"), bytes.Repeat([]byte("0123456789abcdef"), size/16), 0o644); err != nil {
		t.Fatal(err)
	}
	if after, err := disk.writtenBytes(); err != nil || after-before < size {
		t.Error(after-before, err)
	}
	if _, counted := diskOf("/proc"); counted {
		t.Error("/proc is on no disk")
	}
}
