package objects

import (
	"context"
	"errors"
	"fmt"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

func testRoles(t *testing.T) {
	p := newPlace(t)
	other := p.namespace + "-other"
	p.newNamespace(other)
	for _, name := range []string{"shown", "hidden"} {
		_, err := client.CoreV1().Secrets(p.namespace).Create(p.ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		p.must(err)
	}
	p.apply("roles")
	reader := p.as("reader")
	p.eventually("the reader may read", func() error {
		_, err := reader.CoreV1().ConfigMaps(p.namespace).List(p.ctx, metav1.ListOptions{})
		return err
	})
	_, err := reader.CoreV1().ConfigMaps(p.namespace).Get(p.ctx, "kube-root-ca.crt", metav1.GetOptions{})
	p.must(err)
	_, err = reader.CoreV1().Secrets(p.namespace).Get(p.ctx, "shown", metav1.GetOptions{})
	p.must(err)

	denied := func(what string, err error) {
		t.Helper()
		p.refused(what, err, metav1.StatusReasonForbidden, "system:serviceaccount:"+p.namespace+":reader")
	}
	_, err = reader.CoreV1().Secrets(p.namespace).Get(p.ctx, "hidden", metav1.GetOptions{})
	denied("the other Secret", err)
	_, err = reader.CoreV1().Secrets(p.namespace).List(p.ctx, metav1.ListOptions{})
	denied("all Secrets", err)
	_, err = reader.CoreV1().ConfigMaps(p.namespace).Create(p.ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "new"}}, metav1.CreateOptions{})
	denied("writing", err)
	_, err = reader.CoreV1().ConfigMaps(other).List(p.ctx, metav1.ListOptions{})
	denied("another namespace", err)
	_, err = reader.CoreV1().Nodes().List(p.ctx, metav1.ListOptions{})
	denied("what has no namespace", err)

	// kubectl says the same.
	who := "--as=system:serviceaccount:" + p.namespace + ":reader"
	p.must(expect("may list ConfigMaps", p.kubectl("auth", "can-i", "list", "configmaps", who), "yes"))
	if answer, err := p.tryKubectl("", "auth", "can-i", "delete", "configmaps", who); err == nil || answer != "no" {
		t.Fatalf("may delete ConfigMaps: expected no and a failure, saw %q and %v", answer, err)
	}

	// A role that changes counts at once, and so does a binding that goes.
	p.kubectl("patch", "role", "reader", "--type=json", `--patch=[{"op":"add","path":"/rules/0/verbs/-","value":"create"}]`)
	p.eventually("the reader may write", func() error {
		_, err := reader.CoreV1().ConfigMaps(p.namespace).Create(p.ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "new"}}, metav1.CreateOptions{})
		return err
	})
	p.kubectl("delete", "rolebinding", "reader")
	p.eventually("the reader may nothing any more", func() error {
		_, err := reader.CoreV1().ConfigMaps(p.namespace).List(p.ctx, metav1.ListOptions{})
		return expect("the refusal", apierrors.ReasonForError(err), metav1.StatusReasonForbidden)
	})
}

// The rules of a role that is made of others follow those.
func testAggregatedRoles(t *testing.T) {
	p := newPlace(t)
	for _, role := range []string{p.namespace + "-all", p.namespace + "-part"} {
		p.Cleanup(func() {
			p.remove("the role "+role, func(ctx context.Context) error {
				return client.RbacV1().ClusterRoles().Delete(ctx, role, metav1.DeleteOptions{})
			})
		})
	}
	p.Cleanup(func() {
		p.remove("the binding", func(ctx context.Context) error {
			return client.RbacV1().ClusterRoleBindings().Delete(ctx, p.namespace, metav1.DeleteOptions{})
		})
	})
	p.apply("aggregated-roles")
	keeper := p.as("keeper")
	p.eventually("the keeper may list nodes", func() error {
		_, err := keeper.CoreV1().Nodes().List(p.ctx, metav1.ListOptions{})
		return err
	})
	p.kubectl("label", "clusterrole", p.namespace+"-part", "part-of-")
	p.eventually("the keeper may not list nodes any more", func() error {
		_, err := keeper.CoreV1().Nodes().List(p.ctx, metav1.ListOptions{})
		return expect("the refusal", apierrors.ReasonForError(err), metav1.StatusReasonForbidden)
	})
}

func testServiceAccounts(t *testing.T) {
	p := newPlace(t)
	// What a pod of the namespace needs to trust the API server is handed out.
	p.eventually("the CA is published", func() error {
		ca, err := client.CoreV1().ConfigMaps(p.namespace).Get(p.ctx, "kube-root-ca.crt", metav1.GetOptions{})
		if err == nil && ca.Data["ca.crt"] == "" {
			err = errors.New("it is empty")
		}
		return err
	})
	p.createPod("web", nil)
	pod := p.running("web")
	p.must(expect("the account of a pod that names none", pod.Spec.ServiceAccountName, "default"))
	mounted := pod.Spec.Volumes[0].Projected
	if mounted == nil || mounted.Sources[0].ServiceAccountToken == nil {
		t.Fatalf("the pod has no token, but %v", pod.Spec.Volumes)
	}

	// A token says who, for whom and how long; bound to a pod, it ends with that.
	token := p.token("default", pod)
	p.must(expect("who", p.review(token).User.Username, "system:serviceaccount:"+p.namespace+":default"))
	p.must(expect("of which pod", fmt.Sprint(p.review(token).User.Extra["authentication.kubernetes.io/pod-name"]), "[web]"))
	if p.review(token + "x").Authenticated {
		t.Fatal("a token with a false signature is good")
	}
	p.must(client.CoreV1().Pods(p.namespace).Delete(p.ctx, "web", metav1.DeleteOptions{}))
	p.eventually("the token ends with its pod", func() error {
		return expect("authenticated", p.review(token).Authenticated, false)
	})

	// The account that is there of itself comes back.
	before, err := client.CoreV1().ServiceAccounts(p.namespace).Get(p.ctx, "default", metav1.GetOptions{})
	p.must(err)
	token = p.token("default", nil)
	p.must(expect("who", p.review(token).User.Username, "system:serviceaccount:"+p.namespace+":default"))
	p.must(client.CoreV1().ServiceAccounts(p.namespace).Delete(p.ctx, "default", metav1.DeleteOptions{}))
	p.eventually("a new account takes its place", func() error {
		account, err := client.CoreV1().ServiceAccounts(p.namespace).Get(p.ctx, "default", metav1.GetOptions{})
		if err == nil && account.UID == before.UID {
			err = errors.New("it is the old one")
		}
		return err
	})
	p.eventually("the old one's token counts for nothing", func() error {
		return expect("authenticated", p.review(token).Authenticated, false)
	})
}

// token asks for one of a service account, bound to a pod where one is given.
func (p place) token(account string, pod *corev1.Pod) string {
	p.Helper()
	seconds := int64(600)
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}
	if pod != nil {
		request.Spec.BoundObjectRef = &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID}
	}
	answer, err := client.CoreV1().ServiceAccounts(p.namespace).CreateToken(p.ctx, account, request, metav1.CreateOptions{})
	p.must(err)
	return answer.Status.Token
}

// review is what the API server makes of a token.
func (p place) review(token string) authenticationv1.TokenReviewStatus {
	p.Helper()
	request := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}
	answer, err := client.AuthenticationV1().TokenReviews().Create(p.ctx, request, metav1.CreateOptions{})
	p.must(err)
	return answer.Status
}

// as is a client with nothing but the token of a service account.
func (p place) as(account string) *kubernetes.Clientset {
	p.Helper()
	own := rest.AnonymousClientConfig(config)
	own.BearerToken = p.token(account, nil)
	with, err := kubernetes.NewForConfig(own)
	p.must(err)
	return with
}
