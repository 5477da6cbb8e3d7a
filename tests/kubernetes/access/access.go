// Package access opens clients of the API server and of the store below it. Where they are is told by the variables of
// in_run (tests/kubernetes/lib.sh).
package access

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// API says how to reach the API server that KUBECONFIG, or another variable, names. Clients of it are held back by
// nothing but the server.
func API(variable string) (*rest.Config, error) {
	file := os.Getenv(variable)
	if file == "" {
		return nil, fmt.Errorf("%s is not set: this is run by tests/kubernetes/run.sh", variable)
	}
	config, err := clientcmd.BuildConfigFromFlags("", file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", variable, err)
	}
	config.QPS = -1
	return config, nil
}

// Client opens a client of the API server that KUBECONFIG, or another variable, names.
func Client(variable string) (*kubernetes.Clientset, error) {
	config, err := API(variable)
	if err != nil {
		return nil, err
	}
	return kubernetes.NewForConfig(config)
}

// Endpoints are the members' client URLs.
func Endpoints() []string {
	return strings.Split(os.Getenv("STORE_ENDPOINTS"), ",")
}

// StoreTLS is how the API server itself reaches the store.
func StoreTLS() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(os.Getenv("STORE_CERT"), os.Getenv("STORE_KEY"))
	if err != nil {
		return nil, fmt.Errorf("STORE_CERT, STORE_KEY: %w", err)
	}
	authority, err := os.ReadFile(os.Getenv("STORE_CA"))
	if err != nil {
		return nil, fmt.Errorf("STORE_CA: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority) {
		return nil, errors.New("STORE_CA: holds no certificate")
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots}, nil
}

// Store opens a client of these members, all of them if none is named.
func Store(endpoints ...string) (*clientv3.Client, error) {
	if len(endpoints) == 0 {
		endpoints = Endpoints()
	}
	config, err := StoreTLS()
	if err != nil {
		return nil, err
	}
	return clientv3.New(clientv3.Config{
		Endpoints:   endpoints,
		TLS:         config,
		DialTimeout: 5 * time.Second,
		Logger:      zap.NewNop(),
	})
}
