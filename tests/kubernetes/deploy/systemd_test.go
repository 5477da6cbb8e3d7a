package deploy

import (
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The unit's command line and variables, with the file of variables that its head describes, make a member that tells
// systemd when it serves, keeps its data in the unit's folder, and ends in peace.
func TestSystemdUnit(t *testing.T) {
	unit := readUnit(t, "../../../deploy/systemd/mainstay.service")
	if kind := unit.one("Service", "Type"); kind != "notify" {
		t.Fatalf("the unit's Type is %s", kind)
	}
	command := strings.Fields(unit.one("Service", "ExecStart"))
	if !filepath.IsAbs(command[0]) {
		t.Fatalf("systemd does not look for %s", command[0])
	}
	if !unit.installs(command[0]) {
		t.Fatalf("the unit's head does not say how %s comes there", command[0])
	}

	// What stands in these folders on a machine with systemd stands here instead.
	state := "/var/lib/" + unit.one("Service", "StateDirectory")
	folder := t.TempDir()
	environment := []string{}
	for _, assignment := range unit.all("Service", "Environment") {
		_, path, _ := strings.Cut(assignment, "=")
		if !filepath.IsAbs(path) {
			t.Fatalf("%s: not looked at by this test", assignment)
		}
		must(t, underneath(path, []string{state}))
		environment = append(environment, strings.Replace(assignment, state, folder, 1))
	}
	file := unit.one("Service", "EnvironmentFile")
	if !strings.HasPrefix(file, "-/") || !unit.mentions(strings.TrimPrefix(file, "-")) {
		t.Fatalf("EnvironmentFile is %s: expected one that may be missing, and that the head explains", file)
	}
	client, peer := "http://127.0.0.1:"+freePort(t), "http://127.0.0.1:"+freePort(t)
	environment = append(environment,
		"ETCD_NAME=m1",
		"ETCD_LISTEN_CLIENT_URLS="+client, "ETCD_ADVERTISE_CLIENT_URLS="+client,
		"ETCD_LISTEN_PEER_URLS="+peer, "ETCD_INITIAL_ADVERTISE_PEER_URLS="+peer, "ETCD_INITIAL_CLUSTER=m1="+peer,
	)
	for _, variable := range []string{"ETCD_NAME", "ETCD_LISTEN_CLIENT_URLS"} {
		if !unit.mentions(variable) {
			t.Fatalf("the head does not name %s", variable)
		}
	}

	socket := filepath.Join(t.TempDir(), "notify")
	systemd, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	must(t, err)
	defer systemd.Close()
	member := start(t, append(environment, "NOTIFY_SOCKET="+socket), program(t, filepath.Base(command[0])), command[1:]...)
	told(t, systemd, "READY=1")
	// One attempt: whoever was told need not try again.
	must(t, answers(http.DefaultClient, client+"/health"))
	if entries, err := os.ReadDir(folder); err != nil || len(entries) == 0 {
		t.Fatalf("nothing is in the unit's folder: %v", err)
	}

	begun := time.Now()
	member.stop()
	within, err := time.ParseDuration(unit.one("Service", "TimeoutStopSec"))
	must(t, err)
	if took := time.Since(begun); took > within {
		t.Fatalf("it ended after %v, and systemd waits for %v", took, within)
	}
	if status := member.command.ProcessState; !status.Success() {
		// systemd would start it again.
		t.Fatalf("it ended with %s", status)
	}
}

// told waits until systemd is told this, and no other thing before.
func told(t *testing.T, systemd *net.UnixConn, expected string) {
	t.Helper()
	must(t, systemd.SetReadDeadline(time.Now().Add(patience)))
	text := make([]byte, 256)
	count, err := systemd.Read(text)
	must(t, err)
	if seen := strings.TrimSpace(string(text[:count])); seen != expected {
		t.Fatalf("expected %q, saw %q", expected, seen)
	}
}

// unit is a file of systemd's: sections of settings, some of them repeated, and comments.
type unit struct {
	*testing.T
	settings map[string][]string
	comments []string
}

func readUnit(t *testing.T, path string) unit {
	t.Helper()
	text, err := os.ReadFile(path)
	must(t, err)
	read, section := unit{T: t, settings: map[string][]string{}}, ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		switch {
		case line == "":
		case strings.HasPrefix(line, "#"):
			read.comments = append(read.comments, line)
		case strings.HasPrefix(line, "["):
			section = strings.Trim(line, "[]")
		default:
			name, value, found := strings.Cut(line, "=")
			if !found {
				must(t, errors.New("no setting: "+line))
			}
			read.settings[section+"."+name] = append(read.settings[section+"."+name], value)
		}
	}
	return read
}

func (u unit) all(section, name string) []string { return u.settings[section+"."+name] }

func (u unit) one(section, name string) string {
	u.Helper()
	values := u.all(section, name)
	if len(values) != 1 {
		u.Fatalf("[%s] has %s %d times", section, name, len(values))
	}
	return values[0]
}

// mentions tells whether a comment has this.
func (u unit) mentions(text string) bool {
	for _, comment := range u.comments {
		if strings.Contains(comment, text) {
			return true
		}
	}
	return false
}

// installs tells whether the comments say that a program is copied to where the unit runs it.
func (u unit) installs(path string) bool {
	return u.mentions("cp " + filepath.Base(path) + " " + filepath.Dir(path) + "/")
}
