package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

var configMaps = schema.GroupResource{Resource: "configmaps"}

// holding is the load on an API server that has nothing but this under the name a.
func holding(t *testing.T, revision, value string) *work {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(answer http.ResponseWriter, _ *http.Request) {
		answer.Header().Set("Content-Type", "application/json")
		if value == "" {
			status := apierrors.NewNotFound(configMaps, "a").Status()
			status.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
			answer.WriteHeader(http.StatusNotFound)
			_ = json.NewEncoder(answer).Encode(status)
			return
		}
		_ = json.NewEncoder(answer).Encode(corev1.ConfigMap{
			TypeMeta:   metav1.TypeMeta{Kind: "ConfigMap", APIVersion: "v1"},
			ObjectMeta: metav1.ObjectMeta{Name: "a", ResourceVersion: revision},
			Data:       map[string]string{"value": value},
		})
	}))
	t.Cleanup(server.Close)
	config := &rest.Config{Host: server.URL}
	config.ContentType, config.AcceptContentTypes = "application/json", "application/json"
	api, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return &work{api: api, namespace: "here", found: &violations{}, journal: newJournal()}
}

func TestARefusalHasToHaveAReason(t *testing.T) {
	conflict, gone := apierrors.NewConflict(configMaps, "a", errors.New("changed")), apierrors.NewNotFound(configMaps, "a")
	for what, row := range map[string]struct {
		refusal         error
		revision, value string
		violations      int
	}{
		"a conflict with what is there":            {conflict, "5", "old", 1},
		"not found, and it is there":               {gone, "5", "old", 1},
		"a conflict with itself, repeated":         {conflict, "6", "new", 0},
		"a deletion before it, whose fate is open": {gone, "", "", 0},
		"a deletion before it, told as conflict":   {conflict, "", "", 0},
		"no refusal, but no answer":                {context.DeadlineExceeded, "5", "old", 0},
	} {
		t.Run(what, func(t *testing.T) {
			w := holding(t, row.revision, row.value)
			w.journal.begin("a")
			if err := w.journal.acknowledged("a", state{"old", 5}); err != nil {
				t.Fatal(err)
			}
			if row.value == "" {
				w.journal.unanswered("a", "")
			}
			w.settle(t.Context(), write{"update", "a", "new", state{"old", 5}, time.Now()}, nil, row.refusal)
			if w.found.count() != row.violations {
				t.Errorf("%v", w.found.found)
			}
		})
	}
}

func TestWhatBeginsInTheCalmIsToBeAnswered(t *testing.T) {
	var c counts
	early := time.Now()
	c.request("update", early, nil)
	c.calmDown()
	late := time.Now().Add(time.Millisecond)
	c.request("update", early, errors.New("begun under a fault"))
	c.request("update", late, apierrors.NewConflict(configMaps, "a", nil))
	if wrong := strings.Join(c.unserved("update"), "; "); wrong != "update was not answered" {
		t.Error(wrong)
	}
	c.request("update", late, nil)
	if wrong := c.unserved("update"); wrong != nil {
		t.Error(wrong)
	}
	c.request("update", late, errors.New("etcdserver: request timed out"))
	if wrong := strings.Join(c.unserved("update"), "; "); wrong != "update failed 1 times, as by: etcdserver: request timed out" {
		t.Error(wrong)
	}
}
