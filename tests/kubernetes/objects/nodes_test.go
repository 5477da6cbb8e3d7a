package objects

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// A node is there as long as its Lease is renewed. Who is silent is marked, and its pods are to go elsewhere.
func testSilentNodes(t *testing.T) {
	p := newPlace(t)
	node := p.newNode("quiet", "4", nil).Name
	leases := client.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	var first *coordinationv1.Lease
	p.eventually("the node has a Lease", func() (err error) {
		first, err = leases.Get(p.ctx, node, metav1.GetOptions{})
		return err
	})
	p.eventually("the Lease is renewed", func() error {
		lease, err := leases.Get(p.ctx, node, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if !lease.Spec.RenewTime.After(first.Spec.RenewTime.Time) {
			return fmt.Errorf("renewed at %v, as before", lease.Spec.RenewTime)
		}
		return nil
	})
	patient := int64(1)
	p.createPod("web", func(pod *corev1.Pod) {
		p.onNode(pod)
		pod.Spec.Tolerations = append(pod.Spec.Tolerations, corev1.Toleration{
			Key: corev1.TaintNodeUnreachable, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: &patient,
		})
	})
	p.must(expect("the node of the pod", p.running("web").Spec.NodeName, node))

	// kwok plays only nodes whose Lease it holds: with another holder this one falls silent, and its pods with it.
	p.eventually("the Lease is taken over", func() error {
		lease, err := leases.Get(p.ctx, node, metav1.GetOptions{})
		if err != nil {
			return err
		}
		holder, hour, now := "nobody", int32(3600), metav1.NewMicroTime(time.Now())
		lease.Spec.HolderIdentity, lease.Spec.LeaseDurationSeconds, lease.Spec.RenewTime = &holder, &hour, &now
		_, err = leases.Update(p.ctx, lease, metav1.UpdateOptions{})
		return err
	})
	p.nodeIs(node, corev1.ConditionUnknown)
	p.eventually("nothing is to run there", func() error {
		silent, err := client.CoreV1().Nodes().Get(p.ctx, node, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if !tainted(silent, corev1.TaintEffectNoSchedule) || !tainted(silent, corev1.TaintEffectNoExecute) {
			return fmt.Errorf("taints %v", silent.Spec.Taints)
		}
		return nil
	})
	p.eventually("its pod is told to go", func() error {
		pod, err := client.CoreV1().Pods(p.namespace).Get(p.ctx, "web", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil // it has gone at once
		}
		if err != nil {
			return err
		}
		if pod.DeletionTimestamp == nil {
			return errors.New("it is not")
		}
		return nil
	})

	// It speaks again: kwok makes a new Lease where there is none, and ends what was to go.
	if err := leases.Delete(p.ctx, node, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
	p.nodeIs(node, corev1.ConditionTrue)
	p.eventually("it may be used again", func() error {
		back, err := client.CoreV1().Nodes().Get(p.ctx, node, metav1.GetOptions{})
		if err == nil && (tainted(back, corev1.TaintEffectNoSchedule) || tainted(back, corev1.TaintEffectNoExecute)) {
			err = fmt.Errorf("taints %v", back.Spec.Taints)
		}
		return err
	})
	// kwok looks at the node's pods as soon as it has made the Lease anew, but passes over them as those of a node that
	// is not its own while its informer has not seen that Lease, and does not look again: whatever the store is, a pod
	// that does not change may stay for ever. A kubelet would end it.
	p.eventually("the pod has gone", func() error {
		look := fmt.Appendf(nil, `{"metadata":{"annotations":{"looked-for":"%d"}}}`, time.Now().UnixNano())
		_, err := client.CoreV1().Pods(p.namespace).Patch(p.ctx, "web", types.MergePatchType, look, metav1.PatchOptions{})
		return gone(err)
	})
	p.createPod("next", p.onNode)
	p.must(expect("the node of the next pod", p.running("next").Spec.NodeName, node))
}

func tainted(node *corev1.Node, effect corev1.TaintEffect) bool {
	return slices.ContainsFunc(node.Spec.Taints, func(taint corev1.Taint) bool {
		return taint.Key == corev1.TaintNodeUnreachable && taint.Effect == effect
	})
}
