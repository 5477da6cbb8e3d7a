package objects

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// A server of the test's own is asked for each ConfigMap with a label: it changes what comes, and then denies some.
func testAdmissionWebhooks(t *testing.T) {
	p := newPlace(t)
	end := p.serveAdmission()
	configMaps := client.CoreV1().ConfigMaps(p.namespace)
	object := func(name, text string) *corev1.ConfigMap {
		return &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"webhooks": p.namespace}},
			Data:       map[string]string{"text": text},
		}
	}
	try := func(text string) (*corev1.ConfigMap, error) {
		return configMaps.Create(p.ctx, object("tried", text), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	}
	denied := `admission webhook "judge.` + p.namespace + `.example.invalid" denied the request: nobody wants that, though it was seen`
	p.eventually("both are asked", func() error {
		tried, err := try("good")
		if err != nil {
			return err
		}
		if err := expect("what was added", tried.Data["added"], "seen"); err != nil {
			return err
		}
		if _, err = try("bad"); err == nil {
			return errors.New("what is bad was admitted")
		}
		return nil
	})

	// What is stored is what they made of it, and what was denied is not.
	good, err := configMaps.Create(p.ctx, object("good", "good"), metav1.CreateOptions{})
	p.must(err)
	p.must(expect("what was added", good.Data["added"], "seen"))
	kv := p.stored("/registry/configmaps/" + p.namespace + "/good")
	if kv == nil || !strings.Contains(string(kv.Value), "seen") {
		t.Fatalf("stored is %v", kv)
	}
	_, err = configMaps.Create(p.ctx, object("bad", "bad"), metav1.CreateOptions{})
	p.refused("what is bad", err, metav1.StatusReasonForbidden, denied)
	if p.stored("/registry/configmaps/"+p.namespace+"/bad") != nil {
		t.Fatal("what was denied is stored")
	}
	// A change is judged like what is new.
	_, err = configMaps.Patch(p.ctx, "good", types.MergePatchType, []byte(`{"data":{"text":"bad"}}`), metav1.PatchOptions{})
	p.refused("a change to what is bad", err, metav1.StatusReasonForbidden, denied)
	if after := p.stored("/registry/configmaps/" + p.namespace + "/good"); after == nil || after.ModRevision != kv.ModRevision {
		t.Fatalf("after a change that was denied stored is %v", after)
	}
	// Who has not the label is nobody's business.
	other, err := configMaps.Create(p.ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "other"}, Data: map[string]string{"text": "bad"}}, metav1.CreateOptions{})
	p.must(err)
	p.must(expect("what was added to one without the label", other.Data["added"], ""))

	// Where nobody answers nothing passes, unless that is to be ignored.
	end()
	_, err = try("good")
	p.refused("anything while nobody answers", err, metav1.StatusReasonInternalError, "failed calling webhook")
	ignore := []byte(`[{"op":"replace","path":"/webhooks/0/failurePolicy","value":"Ignore"}]`)
	_, err = client.AdmissionregistrationV1().MutatingWebhookConfigurations().Patch(p.ctx, p.namespace, types.JSONPatchType, ignore, metav1.PatchOptions{})
	p.must(err)
	_, err = client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Patch(p.ctx, p.namespace, types.JSONPatchType, ignore, metav1.PatchOptions{})
	p.must(err)
	p.eventually("nobody is asked any more", func() error {
		tried, err := try("bad")
		if err != nil {
			return err
		}
		return expect("what was added", tried.Data["added"], "")
	})
}

// serveAdmission registers two webhooks, of which one adds something, and the other denies what is bad. What it returns
// ends their server.
func (p place) serveAdmission() (end func()) {
	p.Helper()
	certificate, ca := p.selfSigned("localhost")
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		if err := answerReview(response, request); err != nil {
			http.Error(response, err.Error(), http.StatusInternalServerError)
		}
	}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	server.StartTLS()
	p.Cleanup(server.Close)
	address, err := url.Parse(server.URL)
	p.must(err)

	fail, none := admissionregistrationv1.Fail, admissionregistrationv1.SideEffectClassNone
	reach := func(path string) admissionregistrationv1.WebhookClientConfig {
		where := "https://localhost:" + address.Port() + path
		return admissionregistrationv1.WebhookClientConfig{URL: &where, CABundle: ca}
	}
	rules := []admissionregistrationv1.RuleWithOperations{{
		Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create, admissionregistrationv1.Update},
		Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"configmaps"}},
	}}
	labelled := &metav1.LabelSelector{MatchLabels: map[string]string{"webhooks": p.namespace}}
	mutating, validating := client.AdmissionregistrationV1().MutatingWebhookConfigurations(), client.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	p.Cleanup(func() {
		p.remove("the webhook that adds", func(ctx context.Context) error { return mutating.Delete(ctx, p.namespace, metav1.DeleteOptions{}) })
		p.remove("the webhook that judges", func(ctx context.Context) error { return validating.Delete(ctx, p.namespace, metav1.DeleteOptions{}) })
	})
	_, err = mutating.Create(p.ctx, &admissionregistrationv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: p.namespace},
		Webhooks: []admissionregistrationv1.MutatingWebhook{{
			Name: "add." + p.namespace + ".example.invalid", ClientConfig: reach("/add"), Rules: rules, ObjectSelector: labelled,
			FailurePolicy: &fail, SideEffects: &none, AdmissionReviewVersions: []string{"v1"},
		}},
	}, metav1.CreateOptions{})
	p.must(err)
	_, err = validating.Create(p.ctx, &admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: p.namespace},
		Webhooks: []admissionregistrationv1.ValidatingWebhook{{
			Name: "judge." + p.namespace + ".example.invalid", ClientConfig: reach("/judge"), Rules: rules, ObjectSelector: labelled,
			FailurePolicy: &fail, SideEffects: &none, AdmissionReviewVersions: []string{"v1"},
		}},
	}, metav1.CreateOptions{})
	p.must(err)
	return server.Close
}

// answerReview adds something to a ConfigMap at /add, and denies one with a bad text at /judge.
func answerReview(response http.ResponseWriter, request *http.Request) error {
	var review admissionv1.AdmissionReview
	if err := json.NewDecoder(request.Body).Decode(&review); err != nil {
		return err
	}
	if review.Request == nil {
		return errors.New("the review asks for nothing")
	}
	var object corev1.ConfigMap
	if err := json.Unmarshal(review.Request.Object.Raw, &object); err != nil {
		return err
	}
	answer := &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: true}
	switch request.URL.Path {
	case "/add":
		kind := admissionv1.PatchTypeJSONPatch
		answer.PatchType, answer.Patch = &kind, []byte(`[{"op":"add","path":"/data/added","value":"seen"}]`)
	case "/judge":
		if object.Data["text"] == "bad" {
			answer.Allowed = false
			answer.Result = &metav1.Status{
				Code: http.StatusForbidden, Reason: metav1.StatusReasonForbidden,
				Message: "nobody wants that, though it was " + object.Data["added"],
			}
		}
	default:
		return fmt.Errorf("nothing is served at %s", request.URL.Path)
	}
	review.Request, review.Response = nil, answer
	response.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(response).Encode(review)
}
