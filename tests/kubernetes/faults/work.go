package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"mainstay/tests/kubernetes/access"
)

const (
	// How long a request may take until its fate is open.
	answersWithin = 20 * time.Second
	// How long it is tried to learn the fate of a write.
	fateWithin = 3 * time.Minute
	// How long the load goes on after the last fault.
	calmFor = 10 * time.Second
	// Names of each writer.
	namesEach = 12
	// Of the writers' objects; others of the namespace are not theirs.
	label = "written-by=faults"
	// Page size of lists that come in pages.
	page = 15
)

// The load on a control plane, and what it knows.
type work struct {
	api         *kubernetes.Clientset
	namespace   string
	found       *violations
	journal     *journal
	watchers    *watchers
	counts      counts
	deployments []*deployment
	// Of the Job: how many there are, and how many were done when the faults were over.
	parts, partsUnderFaults int32
	stop                    func()
}

// startWork begins to write, list, change and watch.
func startWork(ctx context.Context, seed uint64, rounds, writers int, found *violations) (*work, error) {
	api, err := access.Client("KUBECONFIG")
	if err != nil {
		return nil, err
	}
	namespace, err := api.CoreV1().Namespaces().Create(ctx,
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "faults-"}}, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	w := &work{api: api, namespace: namespace.Name, found: found, journal: newJournal()}
	if err := w.createWorkloads(ctx, seed, rounds); err != nil {
		return nil, err
	}
	if w.watchers, err = startWatchers(ctx, api, w.namespace, found); err != nil {
		return nil, err
	}

	loading, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	dice := func(whose uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, whose)) }
	for id := range writers {
		running.Go(func() { w.write(loading, id, dice(10+uint64(id))) })
	}
	running.Go(func() { w.list(loading) })
	running.Go(func() { w.change(loading, dice(1)) })
	w.stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
	return w, nil
}

// ---- ConfigMaps, each written by one writer

func (w *work) write(ctx context.Context, id int, dice *rand.Rand) {
	made := 0
	fresh := func() string {
		made++
		return fmt.Sprintf("w%d-%d", id, made)
	}
	var names [namesEach]string
	for i := range names {
		names[i] = fresh()
	}
	for step := 0; pause(ctx, time.Duration(10+dice.IntN(40))*time.Millisecond) == nil; step++ {
		i := dice.IntN(len(names))
		if !w.step(ctx, names[i], fmt.Sprintf("%s/%d", names[i], step), dice) {
			names[i] = fresh()
		}
	}
}

// step does one thing with a name. False means that the name is used up. What it has begun it ends, also when the load
// is over.
func (w *work) step(ctx context.Context, name, value string, dice *rand.Rand) bool {
	ctx = context.WithoutCancel(ctx)
	known := w.journal.begin(name)
	defer w.journal.end(name)
	there := known.current.value != ""
	if !there && known.creation != "" {
		return false
	}
	configMaps := w.api.CoreV1().ConfigMaps(w.namespace)
	attempt, cancel := context.WithTimeout(ctx, answersWithin)
	defer cancel()
	began := time.Now()
	object := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"written-by": "faults"}},
		Data:       map[string]string{"value": value, "filler": strings.Repeat("x", dice.IntN(2000))},
	}
	switch what := dice.IntN(10); {
	case !there:
		answer, err := configMaps.Create(attempt, object, metav1.CreateOptions{})
		w.settle(ctx, write{"create", name, value, known.current, began}, answer, err)
	case what < 6:
		object.ResourceVersion = strconv.FormatInt(known.current.revision, 10)
		answer, err := configMaps.Update(attempt, object, metav1.UpdateOptions{})
		w.settle(ctx, write{"update", name, value, known.current, began}, answer, err)
	case what < 8:
		// Only what was seen last, so that a deletion that comes late deletes nothing else.
		revision := strconv.FormatInt(known.current.revision, 10)
		err := configMaps.Delete(attempt, name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: &revision}})
		w.settle(ctx, write{"delete", name, "", known.current, began}, nil, err)
	default:
		found, err := w.get(attempt, name)
		w.counts.request("get", began, err)
		if err == nil {
			w.expect(w.journal.read(name, found))
		}
	}
	return true
}

// A write, and what was known of its name before.
type write struct {
	verb, name, value string
	before            state
	began             time.Time
}

// settle writes down how a write ended. Where that is not certain, it reads what has become of it: a refusal, too, may
// be that of a repeated request whose first was carried out.
func (w *work) settle(ctx context.Context, write write, answer *corev1.ConfigMap, err error) {
	w.counts.request(write.verb, write.began, err)
	if err == nil {
		now := state{value: write.value}
		if answer != nil {
			now.revision = w.revision(answer)
		}
		w.expect(w.journal.acknowledged(write.name, now))
		return
	}
	w.journal.unanswered(write.name, write.value)
	for end := time.Now().Add(fateWithin); time.Now().Before(end); {
		attempt, cancel := context.WithTimeout(ctx, answersWithin)
		found, unread := w.get(attempt, write.name)
		cancel()
		if unread == nil {
			// Such a refusal says that the name was of another revision than the write, or gone. That may be by this
			// write itself, where it was repeated, or by an earlier one that was not answered; but then it stays so.
			if write.before.value != "" && found == write.before && (apierrors.IsConflict(err) || apierrors.IsNotFound(err)) {
				w.found.add("%s of %s was refused, and it still is what it was to change, %v: %v", write.verb, write.name, found, err)
			}
			w.expect(w.journal.read(write.name, found))
			return
		}
		_ = pause(ctx, 200*time.Millisecond)
	}
	w.found.add("%s cannot be read for %v after a write that failed: %v", write.name, fateWithin, err)
}

// get reads the newest, past the API server's cache.
func (w *work) get(ctx context.Context, name string) (state, error) {
	object, err := w.api.CoreV1().ConfigMaps(w.namespace).Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return state{}, nil
	case err != nil:
		return state{}, err
	}
	return state{object.Data["value"], w.revision(object)}, nil
}

func (w *work) expect(err error) {
	if err != nil {
		w.found.add("%v", err)
	}
}

func (w *work) revision(object metav1.Object) int64 {
	revision, err := revisionOf(object)
	w.expect(err)
	return revision
}

// revisionOf is the number that a resourceVersion is. Clients need not know that; a test of the store does.
func revisionOf(object interface{ GetResourceVersion() string }) (int64, error) {
	return strconv.ParseInt(object.GetResourceVersion(), 10, 64)
}

// ---- lists

// list asks for all again and again, at once and in pages, and holds it against what was acknowledged before.
func (w *work) list(ctx context.Context) {
	for round := 0; pause(ctx, 300*time.Millisecond) == nil; round++ {
		before := w.journal.still()
		attempt, cancel := context.WithTimeout(context.WithoutCancel(ctx), answersWithin)
		verb, limit := "list", int64(0)
		if round%3 == 0 {
			verb, limit = "pages", page
		}
		began := time.Now()
		found, _, err := w.listOnce(attempt, limit)
		cancel()
		w.counts.request(verb, began, err)
		if err != nil {
			continue
		}
		for _, wrong := range w.journal.compare(before, found) {
			w.found.add("in a list: %v", wrong)
		}
	}
}

// listOnce lists all of the writers' objects of one revision, so many at a time.
func (w *work) listOnce(ctx context.Context, limit int64) (map[string]state, int64, error) {
	found := map[string]state{}
	options := metav1.ListOptions{LabelSelector: label, Limit: limit}
	var revision int64
	for {
		list, err := w.api.CoreV1().ConfigMaps(w.namespace).List(ctx, options)
		if err != nil {
			return nil, 0, err
		}
		now, err := revisionOf(list)
		if err != nil {
			return nil, 0, err
		}
		if options.Continue != "" && now != revision {
			w.found.add("a page of revision %d after one of %d", now, revision)
		}
		revision = now
		for i := range list.Items {
			object := &list.Items[i]
			found[object.Name] = state{object.Data["value"], w.revision(object)}
		}
		if options.Continue = list.Continue; options.Continue == "" {
			return found, revision, nil
		}
	}
}

// goOn lets the load go on for a while after the last fault, when all is well.
func (w *work) goOn(ctx context.Context, store *members) error {
	if err := store.waitUntilWell(ctx); err != nil {
		return err
	}
	if err := store.apiIsReady(ctx); err != nil {
		return err
	}
	w.counts.calmDown()
	return pause(ctx, calmFor)
}

// ---- what was asked

// How many requests of each verb were answered well, and how many not; and how long no write was answered at most.
type counts struct {
	mutex    sync.Mutex
	answered map[string]int
	failed   map[string]int
	reasons  map[string]int
	last     time.Time
	longest  time.Duration
	// Since when nothing is hurt any more, and what became of requests that began later.
	calm  time.Time
	after map[string]outcome
}

type outcome struct {
	answered int
	refused  []string
}

// request counts one that began then.
func (c *counts) request(verb string, began time.Time, err error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.answered == nil {
		c.answered, c.failed, c.reasons = map[string]int{}, map[string]int{}, map[string]int{}
	}
	if !c.calm.IsZero() && began.After(c.calm) {
		after := c.after[verb]
		if err == nil {
			after.answered++
		} else if !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
			// Those settle judges: an earlier write may have come late.
			after.refused = append(after.refused, err.Error())
		}
		c.after[verb] = after
	}
	if err != nil {
		c.failed[verb]++
		c.reasons[reason(err)]++
		return
	}
	c.answered[verb]++
	if verb == "create" || verb == "update" || verb == "delete" {
		now := time.Now()
		if !c.last.IsZero() {
			c.longest = max(c.longest, now.Sub(c.last))
		}
		c.last = now
	}
}

// calmDown says that from now on nothing is hurt.
func (c *counts) calmDown() {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.calm, c.after = time.Now(), map[string]outcome{}
}

// unserved says what of these was refused since, or not answered at all.
func (c *counts) unserved(verbs ...string) []string {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	var wrong []string
	for _, verb := range verbs {
		after := c.after[verb]
		if len(after.refused) > 0 {
			wrong = append(wrong, fmt.Sprintf("%s failed %d times, as by: %s", verb, len(after.refused), after.refused[0]))
		}
		if after.answered == 0 {
			wrong = append(wrong, verb+" was not answered")
		}
	}
	return wrong
}

func reason(err error) string {
	if status := apierrors.APIStatus(nil); errors.As(err, &status) {
		return fmt.Sprintf("%d %s", status.Status().Code, status.Status().Reason)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return "no answer"
	}
	return "connection"
}
