package compat

import (
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func TestStatusAndMembers(t *testing.T) {
	client, ctx := dial(t)
	status, err := client.Status(ctx, endpoints[0])
	must(t, err)
	equal(t, "version", status.Version, "3.7.1")
	equal(t, "errors", len(status.Errors), 0)
	if status.Leader == 0 || status.DbSize <= 0 || status.RaftTerm == 0 {
		t.Fatalf("status %+v", status)
	}
	members, err := client.MemberList(ctx)
	must(t, err)
	found := false
	for _, member := range members.Members {
		if member.ID == status.Header.MemberId {
			found = len(member.ClientURLs) > 0 && member.Name != ""
		}
	}
	equal(t, "this member is listed", found, true)
	equal(t, "cluster", members.Header.ClusterId, status.Header.ClusterId)
}

// TestNoSpaceAlarm: growth is refused while the alarm stands, everything that shrinks is not.
func TestNoSpaceAlarm(t *testing.T) {
	client, ctx := dial(t)
	key := prefix(t) + "k"
	put(t, ctx, client, key, "1")
	status, err := client.Status(ctx, endpoints[0])
	must(t, err)
	member := status.Header.MemberId

	maintenance := pb.NewMaintenanceClient(client.ActiveConnection())
	_, err = maintenance.Alarm(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: member, Alarm: pb.AlarmType_NOSPACE})
	must(t, err)
	t.Cleanup(func() { _, _ = client.AlarmDisarm(ctx, &clientv3.AlarmMember{}) })
	listed, err := client.AlarmList(ctx)
	must(t, err)
	equal(t, "alarms", len(listed.Alarms), 1)
	equal(t, "of", listed.Alarms[0].MemberID, member)

	_, err = client.Put(ctx, key, "2")
	equal(t, "put", err.Error(), "etcdserver: mvcc: database space exceeded")
	_, err = client.Grant(ctx, 60)
	equal(t, "grant", err.Error(), "etcdserver: mvcc: database space exceeded")
	_, err = client.Get(ctx, key)
	must(t, err)
	_, err = client.Delete(ctx, key)
	must(t, err)

	_, err = client.AlarmDisarm(ctx, &clientv3.AlarmMember{})
	must(t, err)
	put(t, ctx, client, key, "3")
}
