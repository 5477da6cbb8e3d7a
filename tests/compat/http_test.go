package compat

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// fetch asks the client port over HTTP/1.1, where gRPC is served, too.
func fetch(t *testing.T, path string) (int, string) {
	t.Helper()
	client := http.Client{Timeout: deadline}
	response, err := client.Get("http://" + endpoints[0] + path)
	must(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	must(t, err)
	return response.StatusCode, string(body)
}

func TestHTTP(t *testing.T) {
	for _, c := range []struct {
		path   string
		status int
		body   string
	}{
		{"/health", 200, `{"health":"true","reason":""}`},
		{"/health?serializable=true", 200, `{"health":"true","reason":""}`},
		{"/livez", 200, "ok\n"},
		{"/readyz", 200, "ok\n"},
		{"/readyz/linearizable_read", 200, "ok\n"},
		{"/livez/no_such_check", 404, ""},
		{"/version", 200, `{"etcdserver":"3.7.1","etcdcluster":"3.7.0","storage":"3.7.0"}`},
		{"/v2/keys", 404, "404 page not found\n"},
		{"/", 404, "404 page not found\n"},
	} {
		t.Run(c.path, func(t *testing.T) {
			status, body := fetch(t, c.path)
			equal(t, "status", status, c.status)
			if c.body != "" {
				equal(t, "body", body, c.body)
			}
		})
	}

	_, verbose := fetch(t, "/readyz?verbose")
	for _, check := range []string{"data_corruption", "serializable_read", "linearizable_read", "non_learner"} {
		if !strings.Contains(verbose, "[+]"+check+" ok\n") {
			t.Fatalf("no %s in %q", check, verbose)
		}
	}
}

// TestHealthTellsOfAlarms: what a probe sees while the quota's alarm stands.
func TestHealthTellsOfAlarms(t *testing.T) {
	client, ctx := dial(t)
	status, err := client.Status(ctx, endpoints[0])
	must(t, err)
	t.Cleanup(func() {
		again, cancel := context.WithTimeout(context.Background(), deadline)
		defer cancel()
		_, _ = client.AlarmDisarm(again, &clientv3.AlarmMember{})
	})
	_, err = pb.NewMaintenanceClient(client.ActiveConnection()).Alarm(ctx, &pb.AlarmRequest{
		Action: pb.AlarmRequest_ACTIVATE, MemberID: status.Header.MemberId, Alarm: pb.AlarmType_NOSPACE,
	})
	must(t, err)

	code, body := fetch(t, "/health")
	equal(t, "status", code, http.StatusServiceUnavailable)
	equal(t, "body", strings.TrimSpace(body), `{"health":"false","reason":"ALARM NOSPACE"}`)
	code, _ = fetch(t, "/health?exclude=NOSPACE")
	equal(t, "status without that alarm", code, http.StatusOK)
	code, _ = fetch(t, "/readyz")
	equal(t, "readiness is not a matter of space", code, http.StatusOK)
}

// TestMetrics: the names that dashboards, alerts and probes rely on, with sensible values.
func TestMetrics(t *testing.T) {
	client, ctx := dial(t)
	put(t, ctx, client, prefix(t)+"k", "v")
	var text string
	for end := time.Now().Add(deadline); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		_, text = fetch(t, "/metrics")
		if strings.Contains(text, "\netcd_server_has_leader 1\n") {
			break
		}
	}
	for _, name := range []string{
		"etcd_server_has_leader 1",
		"etcd_server_is_leader 1",
		"etcd_server_leader_changes_seen_total",
		"etcd_server_proposals_committed_total",
		"etcd_server_proposals_applied_total",
		"etcd_server_proposals_pending",
		"etcd_server_proposals_failed_total",
		"etcd_server_health_success",
		`etcd_server_version{server_version="3.7.1"} 1`,
		`etcd_cluster_version{cluster_version="3.7"} 1`,
		"etcd_server_quota_backend_bytes 2", // 2 GiB, written as 2147483648 or as 2.147483648e+09
		"etcd_mvcc_db_total_size_in_bytes",
		"etcd_mvcc_db_total_size_in_use_in_bytes",
		"etcd_debugging_mvcc_keys_total",
		"etcd_debugging_mvcc_current_revision",
		"etcd_mvcc_put_total",
		"etcd_mvcc_range_total",
		"etcd_mvcc_txn_total",
		"etcd_disk_wal_fsync_duration_seconds_bucket",
		"etcd_disk_backend_commit_duration_seconds_bucket",
		"etcd_network_client_grpc_sent_bytes_total",
		"etcd_network_client_grpc_received_bytes_total",
		`grpc_server_handled_total{grpc_code="OK",grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"}`,
		`grpc_server_started_total{grpc_method="Watch",grpc_service="etcdserverpb.Watch",grpc_type="bidi_stream"}`,
		"process_resident_memory_bytes",
		"process_start_time_seconds",
	} {
		if !strings.Contains(text, "\n"+name) {
			t.Errorf("no %s", name)
		}
	}
}

func TestDebugVars(t *testing.T) {
	status, body := fetch(t, "/debug/vars")
	equal(t, "status", status, http.StatusOK)
	var variables map[string]any
	must(t, json.Unmarshal([]byte(body), &variables))
}

// TestUncleanPaths: who asks for another form of a path is sent to the clean one, whatever is there.
func TestUncleanPaths(t *testing.T) {
	client := http.Client{Timeout: deadline, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	for _, c := range []struct{ method, path, location, body string }{
		{http.MethodGet, "//health?x=1", "/health?x=1", "<a href=\"/health?x=1\">Temporary Redirect</a>.\n\n"},
		{http.MethodGet, "/a/../version", "/version", "<a href=\"/version\">Temporary Redirect</a>.\n\n"},
		{http.MethodPost, "/v3//kv/range", "/v3/kv/range", ""},
		{http.MethodPost, "/v3beta//kv/put", "/v3/kv/put", ""},
	} {
		t.Run(c.path, func(t *testing.T) {
			request, err := http.NewRequest(c.method, "http://"+endpoints[0]+c.path, strings.NewReader("{}"))
			must(t, err)
			response, err := client.Do(request)
			must(t, err)
			defer response.Body.Close()
			body, err := io.ReadAll(response.Body)
			must(t, err)
			equal(t, "status", response.StatusCode, http.StatusTemporaryRedirect)
			equal(t, "location", response.Header.Get("Location"), c.location)
			equal(t, "body", string(body), c.body)
		})
	}
}
