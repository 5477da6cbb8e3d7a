package main

import (
	"strings"
	"testing"
)

// A name that was created as "a" at revision 5 and updated to "b" at 7.
func written(t *testing.T) *journal {
	t.Helper()
	j := newJournal()
	j.begin("x")
	for _, state := range []state{{"a", 5}, {"b", 7}} {
		if err := j.acknowledged("x", state); err != nil {
			t.Fatal(err)
		}
	}
	j.end("x")
	return j
}

func TestWhatWasAcknowledgedMustBeThere(t *testing.T) {
	for what, test := range map[string]struct {
		found state
		wrong string
	}{
		"as it was":           {state{"b", 7}, ""},
		"lost":                {state{}, "acknowledged"},
		"an earlier value":    {state{"a", 5}, "acknowledged"},
		"another revision":    {state{"b", 8}, "acknowledged"},
		"what nobody wrote":   {state{"c", 9}, "acknowledged"},
		"its revision's past": {state{"b", 5}, "acknowledged"},
	} {
		wrong := written(t).judge(map[string]state{"x": test.found})
		if test.found.value == "" {
			wrong = written(t).judge(nil)
		}
		if (len(wrong) > 0) != (test.wrong != "") || len(wrong) > 0 && !strings.Contains(wrong[0].Error(), test.wrong) {
			t.Errorf("%s: %v", what, wrong)
		}
	}
}

func TestADeletedNameMustNotComeBack(t *testing.T) {
	j := written(t)
	j.begin("x")
	if err := j.acknowledged("x", state{}); err != nil {
		t.Fatal(err)
	}
	j.end("x")
	if wrong := j.judge(nil); len(wrong) > 0 {
		t.Error(wrong)
	}
	if wrong := j.judge(map[string]state{"x": {"b", 7}}); len(wrong) != 1 || !strings.Contains(wrong[0].Error(), "is back") {
		t.Error(wrong)
	}
}

func TestAnUnansweredWriteMayHaveHappenedOrNot(t *testing.T) {
	for what, list := range map[string]map[string]state{
		"it has not": {"x": {"b", 7}}, "it has": {"x": {"c", 9}}, "the deletion has": {},
	} {
		j := written(t)
		j.begin("x")
		j.unanswered("x", "c")
		j.unanswered("x", "")
		if wrong := j.judge(list); len(wrong) > 0 {
			t.Errorf("%s: %v", what, wrong)
		}
		if err := j.read("x", list["x"]); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		// What was read has happened, and cannot be undone by what was open.
		if wrong := j.judge(map[string]state{"x": {"a", 5}}); len(wrong) == 0 {
			t.Errorf("%s: what was before is allowed", what)
		}
		if _, has := list["x"]; has && list["x"].value == "c" {
			if wrong := j.judge(map[string]state{"x": {"b", 7}}); len(wrong) == 0 {
				t.Error("what was read is taken back")
			}
		}
	}
}

func TestAnUnansweredWriteIsOverOnceAnotherIsAnswered(t *testing.T) {
	j := written(t)
	j.begin("x")
	j.unanswered("x", "c")
	if err := j.acknowledged("x", state{"d", 9}); err != nil {
		t.Fatal(err)
	}
	if wrong := j.judge(map[string]state{"x": {"c", 10}}); len(wrong) == 0 {
		t.Error("a write of an older revision came after another")
	}
}

func TestAnUnansweredCreationMayComeAfterADeletion(t *testing.T) {
	j := newJournal()
	j.begin("x")
	j.unanswered("x", "a")
	for what, list := range map[string]map[string]state{"it has not": nil, "it has": {"x": {"a", 4}}} {
		if wrong := j.judge(list); len(wrong) > 0 {
			t.Errorf("%s: %v", what, wrong)
		}
	}
	if err := j.read("x", state{"a", 4}); err != nil {
		t.Fatal(err)
	}
	if wrong := j.judge(nil); len(wrong) == 0 {
		t.Error("what was read is gone")
	}
	if err := j.acknowledged("x", state{}); err != nil {
		t.Fatal(err)
	}
	if wrong := j.judge(map[string]state{"x": {"a", 8}}); len(wrong) > 0 {
		t.Error(wrong)
	}
	j.end("x")
	if known := j.begin("x"); known.creation == "" {
		t.Error("the writer has to know that the name is used up")
	}
}

func TestRevisionsRise(t *testing.T) {
	j := written(t)
	j.begin("x")
	if err := j.acknowledged("x", state{"c", 7}); err == nil {
		t.Error("a write of the same revision was taken")
	}
}

func TestListsAreHeldAgainstWhatStoodStill(t *testing.T) {
	j := written(t)
	before := j.still()
	if wrong := j.compare(before, nil); len(wrong) != 1 {
		t.Errorf("a list without what was acknowledged before it: %v", wrong)
	}
	j.begin("x")
	if wrong := j.compare(before, nil); len(wrong) != 0 {
		t.Errorf("it is being deleted: %v", wrong)
	}
	j.end("x")
	if wrong := j.compare(before, nil); len(wrong) != 0 {
		t.Errorf("it was deleted meanwhile: %v", wrong)
	}
	if wrong := j.judge(map[string]state{"x": {"b", 7}, "y": {"z", 8}}); len(wrong) != 1 {
		t.Errorf("what nobody wrote: %v", wrong)
	}
}
