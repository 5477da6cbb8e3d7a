package objects

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// An autoscaler follows what pods use. Who tells it is an API of the test's own, which the API server passes on.
func testAutoscalers(t *testing.T) {
	p := newPlace(t)
	p.apply("autoscaler")
	p.autoscalerSays(autoscalingv2.ScalingActive, corev1.ConditionFalse, "FailedGetResourceMetric")

	usage := p.serveMetrics()
	usage.Store(100) // of 100 that each asks for, where 50 are wanted
	p.autoscalerSays(autoscalingv2.ScalingActive, corev1.ConditionTrue, "ValidMetricFound")
	// Twice as many at each step, up to the most.
	p.ready("app=web", 6)
	p.autoscalerSays(autoscalingv2.ScalingLimited, corev1.ConditionTrue, "TooManyReplicas")

	// Half of what is wanted is half as many, again and again.
	usage.Store(25)
	p.ready("app=web", 1)
	p.eventually("its status has it", func() error {
		scaler, err := client.AutoscalingV2().HorizontalPodAutoscalers(p.namespace).Get(p.ctx, "web", metav1.GetOptions{})
		if err != nil {
			return err
		}
		return expect("current and desired replicas", [2]int32{scaler.Status.CurrentReplicas, scaler.Status.DesiredReplicas}, [2]int32{1, 1})
	})
}

func (p place) autoscalerSays(kind autoscalingv2.HorizontalPodAutoscalerConditionType, status corev1.ConditionStatus, reason string) {
	p.Helper()
	p.eventually(fmt.Sprintf("the autoscaler says %s=%s for %s", kind, status, reason), func() error {
		scaler, err := client.AutoscalingV2().HorizontalPodAutoscalers(p.namespace).Get(p.ctx, "web", metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, condition := range scaler.Status.Conditions {
			if condition.Type == kind && condition.Status == status && condition.Reason == reason {
				return nil
			}
		}
		return fmt.Errorf("conditions %v", scaler.Status.Conditions)
	})
}

// serveMetrics registers an API that says of each pod how many thousandths of a processor it uses: what is stored in
// the number that is returned. The API server shows its certificate of the front proxy, and nobody else is let in.
func (p place) serveMetrics() *atomic.Int64 {
	p.Helper()
	var usage atomic.Int64
	frontProxy, err := tlsConfig(
		os.Getenv("KUBERNETES_RUN")+"/pki/front-proxy-ca.crt",
		os.Getenv("KUBERNETES_RUN")+"/pki/front-proxy-client.crt",
		os.Getenv("KUBERNETES_RUN")+"/pki/front-proxy-client.key",
	)
	p.must(err)
	certificate, ca := p.selfSigned("metrics." + p.namespace + ".svc")
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		answer, err := metricsAnswer(request, usage.Load())
		switch {
		case err != nil:
			http.Error(response, err.Error(), http.StatusInternalServerError)
		case answer == nil:
			http.NotFound(response, request)
		default:
			response.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(response).Encode(answer)
		}
	}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}, ClientCAs: frontProxy.RootCAs, ClientAuth: tls.RequireAndVerifyClientCert}
	server.StartTLS()
	p.Cleanup(server.Close)

	address, err := url.Parse(server.URL)
	p.must(err)
	// The API has to go before its server: nobody could delete a namespace while it does not answer.
	p.Cleanup(func() {
		p.remove("the API of the metrics", func(ctx context.Context) error {
			return objects.Resource(resourceOf("apiregistration.k8s.io", "v1", "apiservices")).Delete(ctx, "v1beta1.metrics.k8s.io", metav1.DeleteOptions{})
		})
	})
	manifest := strings.NewReplacer("CA", base64.StdEncoding.EncodeToString(ca), "PORT", address.Port()).Replace(p.manifest("metrics"))
	_, err = p.tryKubectl(manifest, "apply", "--filename=-")
	p.must(err)
	p.kubectl("wait", "--for=condition=available", "apiservice/v1beta1.metrics.k8s.io", "--timeout="+patience.String())
	return &usage
}

// metricsAnswer is the list of the API's resources, or what the pods of a namespace use, or nothing.
func metricsAnswer(request *http.Request, usage int64) (any, error) {
	const root = "/apis/metrics.k8s.io/v1beta1"
	if request.URL.Path == root {
		return metav1.APIResourceList{
			TypeMeta:     metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"},
			GroupVersion: "metrics.k8s.io/v1beta1",
			APIResources: []metav1.APIResource{{Name: "pods", Namespaced: true, Kind: "PodMetrics", Verbs: metav1.Verbs{"get", "list"}}},
		}, nil
	}
	namespace, pods := strings.CutSuffix(strings.TrimPrefix(request.URL.Path, root+"/namespaces/"), "/pods")
	if !pods || strings.Contains(namespace, "/") {
		return nil, nil
	}
	list, err := client.CoreV1().Pods(namespace).List(request.Context(), metav1.ListOptions{LabelSelector: request.URL.Query().Get("labelSelector")})
	if err != nil {
		return nil, err
	}
	items := []map[string]any{}
	for _, pod := range list.Items {
		items = append(items, map[string]any{
			"metadata":   map[string]any{"name": pod.Name, "namespace": pod.Namespace},
			"timestamp":  time.Now().UTC().Format(time.RFC3339),
			"window":     "1s",
			"containers": []map[string]any{{"name": "web", "usage": map[string]string{"cpu": fmt.Sprintf("%dm", usage), "memory": "1Mi"}}},
		})
	}
	return map[string]any{"kind": "PodMetricsList", "apiVersion": "metrics.k8s.io/v1beta1", "metadata": map[string]any{}, "items": items}, nil
}

// selfSigned is a certificate for one name, and the same in PEM, for who is to trust it.
func (p place) selfSigned(name string) (tls.Certificate, []byte) {
	p.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	p.must(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	p.must(err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
