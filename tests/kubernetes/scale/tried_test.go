package main

import (
	"context"
	"errors"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestARequestIsTriedUntilItIsAnswered(t *testing.T) {
	there := apierrors.NewAlreadyExists(schema.GroupResource{Resource: "nodes"}, "node-0")
	closed := errors.New("connection closed")
	for what, one := range map[string]struct {
		answers []error
		failed  int64
		fails   bool
	}{
		"at once":                             {[]error{nil}, 0, false},
		"at the third try":                    {[]error{closed, closed, nil}, 2, false},
		"made by a try that was not answered": {[]error{closed, there}, 1, false},
		"made by somebody else, and nobody's": {[]error{there}, 0, true},
	} {
		m := &measurement{}
		tries := 0
		err := m.tried(t.Context(), func() error {
			tries++
			return one.answers[tries-1]
		})
		if (err != nil) != one.fails || tries != len(one.answers) || m.failed.Load() != one.failed {
			t.Errorf("%s: %v after %d tries, %d failed", what, err, tries, m.failed.Load())
		}
	}

	ctx, cancel := context.WithCancel(t.Context())
	err := (&measurement{}).tried(ctx, func() error {
		cancel()
		return closed
	})
	if !errors.Is(err, closed) {
		t.Error("it is over, and yet tried:", err)
	}
}
