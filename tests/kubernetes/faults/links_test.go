package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A member that says back what it is told, and a link to it. Whoever connects is counted to `from`.
func link(t *testing.T, from int) (address string, m *members) {
	t.Helper()
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = echo.Close() })
	go func() {
		for {
			connection, err := echo.Accept()
			if err != nil {
				return
			}
			go func() {
				defer connection.Close()
				_, _ = io.Copy(connection, connection)
			}()
		}
	}()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	public := free.Addr().(*net.TCPAddr).Port
	_ = free.Close()

	folder, err := os.MkdirTemp("", "links") // that of the test has too long a name for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	pid := fmt.Sprintf("%d 1\n", os.Getpid())
	if err := os.WriteFile(filepath.Join(folder, name(from)+".pid"), []byte(pid), 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		ended <- serveLinks(ctx, folder, []string{fmt.Sprintf("%d=%d", public, echo.Addr().(*net.TCPAddr).Port)})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	m = &members{links: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket(folder))
		},
	}}}
	for range 100 {
		if err = m.tellLinks(t.Context(), "heal"); err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", public), m
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	connection, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = connection.Close() })
	return connection
}

// says tells whether what is said comes back, nothing does, or the connection is closed.
func says(t *testing.T, connection net.Conn) string {
	t.Helper()
	if _, err := connection.Write([]byte("x")); err != nil {
		return "closed"
	}
	_ = connection.SetReadDeadline(time.Now().Add(time.Second))
	_, err := connection.Read(make([]byte, 1))
	switch {
	case err == nil:
		return "answered"
	case os.IsTimeout(err):
		return "silent"
	}
	return "closed"
}

func expect(t *testing.T, what, found, wanted string) {
	t.Helper()
	if found != wanted {
		t.Errorf("%s: %s, not %s", what, found, wanted)
	}
}

func TestACutSwallowsAndEndsWithWhatItSwallowed(t *testing.T) {
	// The link leads to member 0; this process is member 1.
	for what, isolated := range map[string]int{"the one that connects": 1, "the one that is connected to": 0} {
		address, m := link(t, 1)
		before := dial(t, address)
		expect(t, what+" is not isolated", says(t, before), "answered")
		if err := m.tellLinks(t.Context(), fmt.Sprintf("isolate?member=%d", isolated)); err != nil {
			t.Fatal(err)
		}
		expect(t, what+" is isolated", says(t, before), "silent")
		during := dial(t, address)
		expect(t, what+" is isolated, a new connection", says(t, during), "silent")
		if err := m.tellLinks(t.Context(), "heal"); err != nil {
			t.Fatal(err)
		}
		// The first write to what is closed may still go out.
		_ = says(t, before)
		expect(t, what+" is healed, a connection with a gap", says(t, before), "closed")
		_ = says(t, during)
		expect(t, what+" is healed, one into the cut", says(t, during), "closed")
		expect(t, what+" is healed, a new connection", says(t, dial(t, address)), "answered")
	}
}

func TestACutHitsNobodyElse(t *testing.T) {
	address, m := link(t, 1)
	if err := m.tellLinks(t.Context(), "isolate?member=2"); err != nil {
		t.Fatal(err)
	}
	expect(t, "of two others", says(t, dial(t, address)), "answered")
	if err := m.tellLinks(t.Context(), "isolate?member=first"); err == nil {
		t.Error("there is no such member")
	}
}
