package compat

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// series is what a member shows: a metric with its labels, as it is printed, and its value.
type series map[string]float64

var sample = regexp.MustCompile(`^([a-zA-Z0-9_:]+)((?:\{.*\})?) (\S+)$`)

// scrape reads /metrics, and the types of all families.
func scrape(t *testing.T, endpoint string) (series, map[string]string) {
	t.Helper()
	response, err := http.Get("http://" + endpoint + "/metrics")
	must(t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	must(t, err)
	values, types := series{}, map[string]string{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		if rest, found := strings.CutPrefix(line, "# TYPE "); found {
			name, kind, _ := strings.Cut(rest, " ")
			types[name] = kind
		}
		if parts := sample.FindStringSubmatch(line); parts != nil {
			value, err := strconv.ParseFloat(parts[3], 64)
			must(t, err)
			values[parts[1]+parts[2]] = value
		}
	}
	return values, types
}

// sum adds up the series of a metric, of all members, whose labels contain this text.
func sum(members []series, metric, labels string) (total float64, found bool) {
	for _, member := range members {
		for name, value := range member {
			base, rest, _ := strings.Cut(name, "{")
			if base == metric && strings.Contains(rest, labels) {
				total, found = total+value, true
			}
		}
	}
	return total, found
}

// What alerts and dashboards of etcd's mixin, and those that many add to it, look at: of which type it is, and which
// of its series rises under load.
var watched = []struct{ name, kind, series, labels string }{
	{"etcd_disk_backend_commit_duration_seconds", "histogram", "etcd_disk_backend_commit_duration_seconds_count", ""},
	{"etcd_disk_wal_fsync_duration_seconds", "histogram", "etcd_disk_wal_fsync_duration_seconds_count", ""},
	{"etcd_disk_wal_write_duration_seconds", "histogram", "etcd_disk_wal_write_duration_seconds_count", ""},
	{"etcd_disk_wal_write_bytes_total", "gauge", "etcd_disk_wal_write_bytes_total", ""},
	{"etcd_disk_backend_defrag_duration_seconds", "histogram", "etcd_disk_backend_defrag_duration_seconds_count", ""},
	{"etcd_disk_backend_snapshot_duration_seconds", "histogram", "etcd_disk_backend_snapshot_duration_seconds_count", ""},
	{"etcd_network_client_grpc_received_bytes_total", "counter", "etcd_network_client_grpc_received_bytes_total", ""},
	{"etcd_network_client_grpc_sent_bytes_total", "counter", "etcd_network_client_grpc_sent_bytes_total", ""},
	{"etcd_network_peer_received_bytes_total", "counter", "etcd_network_peer_received_bytes_total", `From="`},
	{"etcd_network_peer_sent_bytes_total", "counter", "etcd_network_peer_sent_bytes_total", `To="`},
	{"etcd_server_proposals_applied_total", "gauge", "etcd_server_proposals_applied_total", ""},
	{"etcd_server_proposals_committed_total", "gauge", "etcd_server_proposals_committed_total", ""},
	{"etcd_server_apply_duration_seconds", "histogram", "etcd_server_apply_duration_seconds_count", `op="Put",success="true",version="v3"`},
	{"etcd_server_apply_duration_seconds", "histogram", "etcd_server_apply_duration_seconds_count", `op="LeaseGrant",success="true",version="v3"`},
	{"etcd_server_apply_duration_seconds", "histogram", "etcd_server_apply_duration_seconds_count", `op="LeaseRevoke",success="false",version="v3"`},
	{"etcd_server_request_duration_seconds", "histogram", "etcd_server_request_duration_seconds_count", `success="true",type="Put"`},
	{"etcd_server_request_duration_seconds", "histogram", "etcd_server_request_duration_seconds_count", `success="true",type="Range"`},
	{"etcd_server_request_duration_seconds", "histogram", "etcd_server_request_duration_seconds_count", `success="true",type="ReadonlyTxn"`},
	{"etcd_server_request_duration_seconds", "histogram", "etcd_server_request_duration_seconds_count", `success="true",type="Compaction"`},
	{"etcd_server_range_duration_seconds", "histogram", "etcd_server_range_duration_seconds_count", `success="true"`},
	{"etcd_mvcc_put_total", "counter", "etcd_mvcc_put_total", ""},
	{"etcd_mvcc_delete_total", "counter", "etcd_mvcc_delete_total", ""},
	{"etcd_mvcc_range_total", "counter", "etcd_mvcc_range_total", ""},
	{"etcd_mvcc_txn_total", "counter", "etcd_mvcc_txn_total", ""},
	{"etcd_mvcc_hash_rev_duration_seconds", "histogram", "etcd_mvcc_hash_rev_duration_seconds_count", ""},
	{"etcd_debugging_mvcc_total_put_size_in_bytes", "gauge", "etcd_debugging_mvcc_total_put_size_in_bytes", ""},
	{"etcd_debugging_mvcc_events_total", "counter", "etcd_debugging_mvcc_events_total", ""},
	{"etcd_debugging_mvcc_db_compaction_keys_total", "counter", "etcd_debugging_mvcc_db_compaction_keys_total", ""},
	{"etcd_debugging_mvcc_db_compaction_last", "gauge", "etcd_debugging_mvcc_db_compaction_last", ""},
	{"etcd_debugging_mvcc_db_compaction_total_duration_milliseconds", "histogram", "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds_count", ""},
	{"etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds", "histogram", "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds_count", ""},
	{"etcd_debugging_lease_granted_total", "counter", "etcd_debugging_lease_granted_total", ""},
	{"etcd_debugging_lease_renewed_total", "counter", "etcd_debugging_lease_renewed_total", ""},
	{"etcd_debugging_lease_revoked_total", "counter", "etcd_debugging_lease_revoked_total", ""},
	{"etcd_debugging_lease_ttl_total", "histogram", "etcd_debugging_lease_ttl_total_count", ""},
	{"etcd_debugging_server_lease_expired_total", "counter", "etcd_debugging_server_lease_expired_total", ""},
	{"grpc_server_started_total", "counter", "grpc_server_started_total", `grpc_method="Watch",grpc_service="etcdserverpb.Watch",grpc_type="bidi_stream"`},
	{"grpc_server_handled_total", "counter", "grpc_server_handled_total", `grpc_code="OK",grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"`},
	{"grpc_server_handling_seconds", "histogram", "grpc_server_handling_seconds_count", `grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"`},
	// Shown, and tested for a value below.
	{"etcd_mvcc_db_total_size_in_bytes", "gauge", "", ""},
	{"etcd_mvcc_db_total_size_in_use_in_bytes", "gauge", "", ""},
	{"etcd_server_quota_backend_bytes", "gauge", "", ""},
	{"etcd_server_has_leader", "gauge", "", ""},
	{"etcd_server_is_leader", "gauge", "", ""},
	{"etcd_server_is_learner", "gauge", "", ""},
	{"etcd_server_id", "gauge", "", ""},
	{"etcd_server_leader_changes_seen_total", "counter", "", ""},
	{"etcd_server_proposals_pending", "gauge", "", ""},
	{"etcd_server_proposals_failed_total", "counter", "", ""},
	{"etcd_server_read_indexes_failed_total", "counter", "", ""},
	{"etcd_server_slow_read_indexes_total", "counter", "", ""},
	{"etcd_server_slow_apply_total", "counter", "", ""},
	{"etcd_server_health_failures", "counter", "", ""},
	{"etcd_server_heartbeat_send_failures_total", "counter", "", ""},
	{"etcd_debugging_mvcc_keys_total", "gauge", "", ""},
	{"etcd_network_active_peers", "gauge", "", ""},
	{"etcd_network_known_peers", "gauge", "", ""},
	{"process_resident_memory_bytes", "gauge", "", ""},
	{"process_start_time_seconds", "gauge", "", ""},
	{"process_cpu_seconds_total", "counter", "", ""},
	{"os_fd_used", "gauge", "", ""},
	{"os_fd_limit", "gauge", "", ""},
	{"go_goroutines", "gauge", "", ""},
	{"go_gc_duration_seconds", "summary", "", ""},
}

// TestWatchedMetrics: on three members, what alerts and dashboards look at exists and moves; then members are lost.
func TestWatchedMetrics(t *testing.T) {
	endpoints, kill := startCluster(t, "--metrics=extensive", "--warning-apply-duration=1ns")
	ctx, cancel := context.WithTimeout(t.Context(), 5*deadline)
	defer cancel()
	all := func(of []string) (members []series) {
		for _, endpoint := range of {
			values, _ := scrape(t, endpoint)
			members = append(members, values)
		}
		return members
	}
	eventually(t, "all know a leader", func() bool {
		known, _ := sum(all(endpoints), "etcd_server_has_leader", "")
		return known == 3
	})
	before := all(endpoints)
	load(t, ctx, endpoints)

	_, types := scrape(t, endpoints[0])
	for _, metric := range watched {
		equal(t, metric.name, types[metric.name], metric.kind)
		if metric.series == "" {
			continue
		}
		what := fmt.Sprintf("%s{…%s…} rises", metric.series, metric.labels)
		eventually(t, what, func() bool {
			was, _ := sum(before, metric.series, metric.labels)
			is, found := sum(all(endpoints), metric.series, metric.labels)
			return found && is > was
		})
	}
	now := all(endpoints)
	for metric, expected := range map[string]float64{
		"etcd_server_has_leader": 3, "etcd_server_is_leader": 1, "etcd_server_is_learner": 0, "etcd_server_id": 3,
		"etcd_server_proposals_failed_total": 0, "etcd_server_quota_backend_bytes": 3 * 2147483648,
		"etcd_network_active_peers": 6, "etcd_debugging_mvcc_keys_total": 3 * 3,
	} {
		value, found := sum(now, metric, "")
		if !found || value != expected {
			t.Errorf("%s: %v in all, want %v", metric, value, expected)
		}
	}
	if slow, _ := sum(now, "etcd_server_slow_apply_total", ""); slow == 0 {
		t.Error("no command took longer than a nanosecond")
	}
	// etcd asks its peers for their delay after five seconds, and then every thirty.
	eventually(t, "all know their delay to all", func() bool {
		delays := 0
		for _, member := range all(endpoints) {
			for name, value := range member {
				if strings.HasPrefix(name, "etcd_network_peer_round_trip_time_seconds_count{To=") && value > 0 {
					delays++
				}
			}
		}
		return delays == 6
	})

	// A leader is lost.
	_, leader := roles(t, ctx, endpoints)
	lost := endpoints[leader]
	rest := slices.DeleteFunc(slices.Clone(endpoints), func(endpoint string) bool { return endpoint == lost })
	before = all(rest)
	kill[leader]()
	for _, metric := range []string{
		"etcd_server_leader_changes_seen_total", "etcd_network_disconnected_peers_total", "etcd_network_peer_sent_failures_total",
	} {
		eventually(t, metric+" rises", func() bool {
			was, _ := sum(before, metric, "")
			is, _ := sum(all(rest), metric, "")
			return is > was
		})
	}
	eventually(t, "the two have each other", func() bool {
		active, _ := sum(all(rest), "etcd_network_active_peers", "")
		known, _ := sum(all(rest), "etcd_server_has_leader", "")
		return active == 2 && known == 2
	})

	// The majority is lost.
	last := rest[0]
	kill[slices.Index(endpoints, rest[1])]()
	before = all([]string{last})
	client := to(t, last)
	short, stop := context.WithTimeout(ctx, 2*deadline)
	defer stop()
	_, err := clientv3.NewKV(client).Put(short, "k", "v")
	if err == nil {
		t.Fatal("a put without a majority")
	}
	_, err = client.Get(short, "k")
	if err == nil {
		t.Fatal("a read without a majority")
	}
	eventually(t, "there is no leader", func() bool {
		known, found := sum(all([]string{last}), "etcd_server_has_leader", "")
		return found && known == 0
	})
	rises := func(metrics ...string) func() bool {
		return func() bool {
			after := all([]string{last})
			return slices.ContainsFunc(metrics, func(metric string) bool {
				was, _ := sum(before, metric, "")
				is, _ := sum(after, metric, "")
				return is > was
			})
		}
	}
	eventually(t, "proposals fail", rises("etcd_server_proposals_failed_total"))
	eventually(t, "reads fail", rises("etcd_server_read_indexes_failed_total", "etcd_server_slow_read_indexes_total"))
	status, err := http.Get("http://" + last + "/health")
	must(t, err)
	_ = status.Body.Close()
	equal(t, "health", status.StatusCode, http.StatusServiceUnavailable)
	eventually(t, "health checks fail", rises("etcd_server_health_failures"))
}

// load does a little of everything, so that every member has something to count.
func load(t *testing.T, ctx context.Context, endpoints []string) {
	t.Helper()
	for i, endpoint := range endpoints {
		client := to(t, endpoint)
		key := fmt.Sprint("k", i)
		watching := client.Watch(ctx, key)
		put(t, ctx, client, key, "1")
		last := put(t, ctx, client, key, "2")
		_, err := client.Get(ctx, key)
		must(t, err)
		_, err = client.Get(ctx, key, clientv3.WithSerializable())
		must(t, err)
		_, err = client.Txn(ctx).Then(clientv3.OpPut(key+"x", "v"), clientv3.OpGet(key)).Commit()
		must(t, err)
		_, err = client.Txn(ctx).Then(clientv3.OpGet(key), clientv3.OpGet(key+"x")).Commit()
		must(t, err)
		_, err = client.Delete(ctx, key+"x")
		must(t, err)
		lease, err := client.Grant(ctx, 60)
		must(t, err)
		_, err = client.KeepAliveOnce(ctx, lease.ID)
		must(t, err)
		_, err = client.Revoke(ctx, lease.ID)
		must(t, err)
		_, err = client.Revoke(ctx, lease.ID)
		if err == nil {
			t.Fatal("revoked twice")
		}
		_, err = client.Compact(ctx, last)
		must(t, err)
		_, err = client.HashKV(ctx, endpoint, 0)
		must(t, err)
		_, err = client.Defragment(ctx, endpoint)
		must(t, err)
		snapshot, err := client.Snapshot(ctx)
		must(t, err)
		_, err = io.Copy(io.Discard, snapshot)
		must(t, err)
		_ = snapshot.Close()
		if len(take(t, "event", watching).Events) == 0 {
			t.Fatal("no event")
		}
	}
	// Runs out.
	_, err := to(t, endpoints[0]).Grant(ctx, 1)
	must(t, err)
}

// TestMetricsOfEtcd compares what members show that have done a little of everything with what those of etcd show:
// the same names, types and labels.
func TestMetricsOfEtcd(t *testing.T) {
	endpoints, _ := startCluster(t)
	t.Setenv("MAINSTAY_BIN", filepath.Join(filepath.Dir(os.Getenv("ETCDCTL")), "etcd"))
	originals, _ := startCluster(t)
	ctx, cancel := context.WithTimeout(t.Context(), 4*deadline)
	defer cancel()
	load(t, ctx, endpoints)
	load(t, ctx, originals)
	time.Sleep(7 * time.Second) // etcd looks at its peers after five seconds
	labels := func(of []string) (map[string]string, map[string]string) {
		types, names := map[string]string{}, map[string]string{}
		for _, endpoint := range of {
			values, shown := scrape(t, endpoint)
			maps.Copy(types, shown)
			for name := range values {
				base, rest, _ := strings.Cut(name, "{")
				found := regexp.MustCompile(`(\w+)="`).FindAllString(rest, -1)
				slices.Sort(found)
				names[base] = strings.Join(found, "")
			}
		}
		return types, names
	}
	ourTypes, ourNames := labels(endpoints)
	types, names := labels(originals)
	for name, kind := range types {
		equal(t, name, ourTypes[name], kind)
	}
	for name, expected := range names {
		// A summary without quantiles, because there is nothing to summarise.
		if name != "go_gc_duration_seconds" {
			equal(t, "labels of "+name, ourNames[name], expected)
		}
	}
}
