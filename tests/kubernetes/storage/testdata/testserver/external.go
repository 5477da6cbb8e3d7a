package testserver

// Stands in for an embedded etcd: a process of the binary that MAINSTAY_BIN names, with the flags that say what
// an embed.Config says. tests/kubernetes/storage/suite.sh adds this file to the package by an overlay, and has RunEtcd
// call startExternal where it calls embed.StartEtcd; nothing else of the module is touched.

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
)

const (
	startsWithin = 60 * time.Second
	endsWithin   = 10 * time.Second
)

// external has the shape of *embed.Etcd, as far as RunEtcd uses it.
type external struct {
	Server *externalServer
	t      testing.TB
}

type externalServer struct {
	process *exec.Cmd
	log     string
	cluster externalCluster
	ready   chan struct{}
	ended   chan struct{}
	failed  chan error
	stop    func()
}

type externalCluster []string

func (c externalCluster) ClientURLs() []string { return c }

func (e *external) Err() <-chan error { return e.Server.failed }

func (e *external) Close() {
	e.Server.stop()
	if e.t.Failed() {
		e.t.Logf("the member's log ends with:\n%s", e.Server.tail())
	}
}

func (s *externalServer) ReadyNotify() <-chan struct{} { return s.ready }
func (s *externalServer) Cluster() externalCluster     { return s.cluster }
func (s *externalServer) Stop()                        { s.stop() }

func startExternal(t testing.TB, cfg *embed.Config) (*external, error) {
	t.Helper()
	if err := note(t); err != nil {
		return nil, err
	}
	arguments, err := flagsOf(cfg)
	if err != nil {
		return nil, err
	}
	tls, err := cfg.ClientTLSInfo.ClientConfig()
	if err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(t.TempDir(), "member.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()

	s := &externalServer{
		process: exec.Command(os.Getenv("MAINSTAY_BIN"), arguments...),
		log:     log.Name(),
		cluster: texts(cfg.AdvertiseClientUrls),
		ready:   make(chan struct{}),
		ended:   make(chan struct{}),
		failed:  make(chan error, 1),
	}
	s.process.Stdout, s.process.Stderr = log, log
	s.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.process.Start(); err != nil {
		return nil, err
	}

	stopping := make(chan struct{})
	s.stop = sync.OnceFunc(func() {
		close(stopping)
		_ = s.process.Process.Signal(syscall.SIGTERM)
		select {
		case <-s.ended:
		case <-time.After(endsWithin):
			t.Errorf("the member did not end within %v of SIGTERM", endsWithin)
			_ = s.process.Process.Kill()
			<-s.ended
		}
	})
	go func() {
		status := s.process.Wait()
		select {
		case <-stopping:
		default:
			s.failed <- fmt.Errorf("the member ended by itself: %v", status)
		}
		close(s.failed)
		close(s.ended)
	}()

	probe := &http.Client{Timeout: time.Second, Transport: &http.Transport{TLSClientConfig: tls}}
	go func() {
		defer probe.CloseIdleConnections()
		for end := time.Now().Add(startsWithin); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			select {
			case <-s.ended:
				close(s.ready) // what failed is told by Err, which is asked next
				return
			default:
			}
			response, err := probe.Get(s.cluster[0] + "/health")
			if err != nil {
				continue
			}
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				close(s.ready)
				return
			}
		}
	}()
	return &external{Server: s, t: t}, nil
}

// The end of what the member has logged.
func (s *externalServer) tail() []byte {
	text, err := os.ReadFile(s.log)
	if err != nil {
		return []byte(err.Error())
	}
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return bytes.Join(lines[max(0, len(lines)-20):], []byte("\n"))
}

// Writes down that this test has a server, so that the others do not count as held against it.
func note(t testing.TB) error {
	path := os.Getenv("TESTS_WITH_A_SERVER")
	if path == "" {
		return errors.New("TESTS_WITH_A_SERVER is not set: run tests/kubernetes/storage/suite.sh")
	}
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	folder, err := os.Getwd() // a test runs in the folder of its package
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(file, "%s %s\n", folder, t.Name())
	return errors.Join(err, file.Close())
}

// What flagsOf says in words of its own, and what is no flag and changes no behaviour.
var said = []string{
	"ListenPeerUrls", "ListenClientUrls", "AdvertisePeerUrls", "AdvertiseClientUrls", "ClientTLSInfo", "InitialCluster",
	"ZapLoggerBuilder", "ServerFeatureGate", "FlagsExplicitlySet",
}

// The flags of a configuration. A field's JSON name is the flag's; a setting that differs from etcd's default and
// cannot be said as a flag is an error, so that no test runs with other settings than it asked for.
func flagsOf(cfg *embed.Config) ([]string, error) {
	flags := []string{
		"--log-level=warn",
		"--listen-peer-urls=" + strings.Join(texts(cfg.ListenPeerUrls), ","),
		"--listen-client-urls=" + strings.Join(texts(cfg.ListenClientUrls), ","),
		"--initial-advertise-peer-urls=" + strings.Join(texts(cfg.AdvertisePeerUrls), ","),
		"--advertise-client-urls=" + strings.Join(texts(cfg.AdvertiseClientUrls), ","),
		"--initial-cluster=" + cfg.InitialCluster,
	}

	tls := cfg.ClientTLSInfo
	for flag, value := range map[string]string{
		"cert-file": tls.CertFile, "key-file": tls.KeyFile, "trusted-ca-file": tls.TrustedCAFile,
	} {
		if value != "" {
			flags = append(flags, "--"+flag+"="+value)
		}
	}
	flags = append(flags, fmt.Sprintf("--client-cert-auth=%t", tls.ClientCertAuth))
	tls.CertFile, tls.KeyFile, tls.TrustedCAFile, tls.ClientCertAuth = "", "", "", false
	if !reflect.DeepEqual(tls, transport.TLSInfo{}) {
		return nil, fmt.Errorf("a setting of TLS is not passed on: %+v", tls)
	}

	given, unset := reflect.ValueOf(cfg).Elem(), reflect.ValueOf(embed.NewConfig()).Elem()
	for i := range given.NumField() {
		field := given.Type().Field(i)
		if !field.IsExported() || slices.Contains(said, field.Name) {
			continue
		}
		if reflect.DeepEqual(given.Field(i).Interface(), unset.Field(i).Interface()) {
			continue
		}
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		value := given.Field(i)
		switch {
		case name == "" || name == "-":
			return nil, fmt.Errorf("the setting %s is not passed on", field.Name)
		case value.Type() == reflect.TypeFor[time.Duration](), value.CanInt(), value.CanUint(),
			value.Kind() == reflect.Bool, value.Kind() == reflect.String:
			flags = append(flags, fmt.Sprintf("--%s=%v", name, value.Interface()))
		default:
			return nil, fmt.Errorf("the setting %s is not passed on", field.Name)
		}
	}
	return flags, nil
}

func texts(urls []url.URL) []string {
	var texts []string
	for _, url := range urls {
		texts = append(texts, url.String())
	}
	return texts
}
