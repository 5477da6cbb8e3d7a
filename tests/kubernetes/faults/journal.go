package main

import (
	"fmt"
	"maps"
	"slices"
	"sync"
)

// What is there under a name: a value, which is never used again, at a revision; or nothing.
type state struct {
	value    string // "" where there is nothing
	revision int64
}

func (s state) String() string {
	if s.value == "" {
		return "nothing"
	}
	return fmt.Sprintf("%q at revision %d", s.value, s.revision)
}

// What a writer knows of a name. It alone writes it, one thing after the other.
type entry struct {
	// What was acknowledged last, or read since.
	current state
	// What the name may have become as well ("": deleted), by writes whose fate is open. Each says of which revision it
	// is, so none of them can come after another write.
	open []string
	// What it was created as by a write whose fate was open at first. A creation says nothing of a revision, so it could
	// come after a deletion, too. Such a name is not used again once it is deleted.
	creation string
	// Counts what begins and ends, so that a reader can tell that nothing has.
	steps int
	busy  bool
}

// All that was acknowledged.
type journal struct {
	mutex   sync.Mutex
	entries map[string]*entry
}

func newJournal() *journal { return &journal{entries: map[string]*entry{}} }

// begin says that a name is about to be written, and tells what is known of it.
func (j *journal) begin(name string) entry {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	e := j.entries[name]
	if e == nil {
		e = &entry{}
		j.entries[name] = e
	}
	e.steps++
	e.busy = true
	return *e
}

func (j *journal) end(name string) {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	j.entries[name].steps++
	j.entries[name].busy = false
}

// acknowledged: the write of this state was answered. An error says that this cannot be.
func (j *journal) acknowledged(name string, now state) error {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	e := j.entries[name]
	if now.value != "" && now.revision <= e.current.revision {
		return fmt.Errorf("%s was %v, and an acknowledged write has made it %v", name, e.current, now)
	}
	if now.value == "" {
		now.revision = e.current.revision // at least
	}
	e.current, e.open = now, nil
	return nil
}

// unanswered: the write of this value has no known fate.
func (j *journal) unanswered(name, value string) {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	e := j.entries[name]
	if e.current.value == "" {
		e.creation = value
	} else {
		e.open = append(e.open, value)
	}
}

// read: this was read after the last write, by a read of the newest. An error says that this cannot be.
func (j *journal) read(name string, found state) error {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	e := j.entries[name]
	if err := e.allows(name, found); err != nil {
		return err
	}
	if found.value != e.current.value {
		if found.value == "" {
			found.revision = e.current.revision
		}
		e.current, e.open = found, nil
	}
	return nil
}

// allows says what is wrong with what was found under a name, if anything.
func (e *entry) allows(name string, found state) error {
	switch {
	case found.value == e.current.value && (found.value == "" || found.revision == e.current.revision):
		return nil
	case slices.Contains(e.open, found.value) && (found.value == "" || found.revision > e.current.revision):
		return nil
	case e.current.value == "" && found.value == e.creation:
		return nil
	case e.current.value == "":
		return fmt.Errorf("%s was deleted, and is back: %v", name, found)
	}
	return fmt.Errorf("%s was acknowledged as %v, and is %v", name, e.current, found)
}

// still tells of all names of which nothing is open and nothing happens.
func (j *journal) still() map[string]entry {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	found := map[string]entry{}
	for name, e := range j.entries {
		if !e.busy && len(e.open) == 0 {
			found[name] = *e
		}
	}
	return found
}

// compare holds a list of the newest against what was known before it was asked for, as far as that has not changed
// until now.
func (j *journal) compare(before map[string]entry, list map[string]state) []error {
	after := j.still()
	var wrong []error
	for _, name := range slices.Sorted(maps.Keys(before)) {
		then := before[name]
		if now, there := after[name]; !there || now.steps != then.steps {
			continue
		}
		if err := then.allows(name, list[name]); err != nil {
			wrong = append(wrong, err)
		}
	}
	return wrong
}

// judge holds the last list against everything. Nothing may be busy any more.
func (j *journal) judge(list map[string]state) []error {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	var wrong []error
	for _, name := range slices.Sorted(maps.Keys(j.entries)) {
		if err := j.entries[name].allows(name, list[name]); err != nil {
			wrong = append(wrong, err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(list)) {
		if j.entries[name] == nil {
			wrong = append(wrong, fmt.Errorf("%s is %v, and nobody has written it", name, list[name]))
		}
	}
	return wrong
}
