package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The connections between the members: each reaches another by a port of this process, which carries them on to where
// that one listens. A connection is counted to the member that owns its far end, so that a member can be cut off in
// both directions. What is sent into a cut is swallowed, as by a broken cable, and neither refused nor answered; when
// it heals, the connections that lost bytes are closed, and the members make new ones.
type links struct {
	folder string

	mutex    sync.Mutex
	isolated map[int]bool
	pipes    map[*pipe]bool
}

// A connection from a member, -1 if it is not known, to a member.
type pipe struct {
	from, to int
	lost     bool
	incoming net.Conn
	outgoing net.Conn // nil where it was made into a cut
}

func serveLinks(ctx context.Context, folder string, ends []string) error {
	l := &links{folder: folder, isolated: map[int]bool{}, pipes: map[*pipe]bool{}}
	for member, end := range ends {
		public, private, _ := strings.Cut(end, "=")
		listener, err := net.Listen("tcp", "127.0.0.1:"+public)
		if err != nil {
			return err
		}
		defer listener.Close()
		go l.accept(listener, member, "127.0.0.1:"+private)
	}
	control, err := net.Listen("unix", socket(folder))
	if err != nil {
		return err
	}
	server := &http.Server{Handler: l.control()}
	go func() {
		<-ctx.Done()
		_ = server.Close()
	}()
	if err := server.Serve(control); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// POST /isolate?member=1, POST /heal
func (l *links) control() http.Handler {
	paths := http.NewServeMux()
	paths.HandleFunc("POST /isolate", func(response http.ResponseWriter, request *http.Request) {
		member, err := strconv.Atoi(request.URL.Query().Get("member"))
		if err != nil {
			http.Error(response, "member: "+err.Error(), http.StatusBadRequest)
			return
		}
		l.mutex.Lock()
		defer l.mutex.Unlock()
		l.isolated[member] = true
	})
	paths.HandleFunc("POST /heal", func(http.ResponseWriter, *http.Request) {
		l.mutex.Lock()
		defer l.mutex.Unlock()
		clear(l.isolated)
		for pipe := range l.pipes {
			if pipe.lost {
				pipe.close()
			}
		}
	})
	return paths
}

func (l *links) accept(listener net.Listener, to int, address string) {
	for {
		incoming, err := listener.Accept()
		if err != nil {
			return
		}
		go l.carry(incoming, to, address)
	}
}

func (l *links) carry(incoming net.Conn, to int, address string) {
	defer incoming.Close()
	p := &pipe{from: l.memberOf(incoming.RemoteAddr()), to: to, incoming: incoming}
	if !l.isCut(p) {
		outgoing, err := net.Dial("tcp", address)
		if err != nil {
			return
		}
		defer outgoing.Close()
		p.outgoing = outgoing
	}
	l.mutex.Lock()
	// It may have been healed since: then there is nobody to close what leads nowhere.
	dead := p.outgoing == nil && !l.cuts(p)
	p.lost = p.outgoing == nil
	l.pipes[p] = true
	l.mutex.Unlock()
	defer func() {
		l.mutex.Lock()
		defer l.mutex.Unlock()
		delete(l.pipes, p)
	}()
	if dead {
		return
	}
	if p.outgoing != nil {
		go func() {
			defer p.close()
			l.pass(p, p.outgoing, p.incoming)
		}()
	}
	l.pass(p, p.incoming, p.outgoing)
	p.close()
}

// pass copies one direction of a connection until an end closes it.
func (l *links) pass(p *pipe, from, to net.Conn) {
	bytes := make([]byte, 64<<10)
	for {
		count, err := from.Read(bytes)
		if count > 0 && !l.isCut(p) {
			if to == nil {
				return
			}
			if _, err := to.Write(bytes[:count]); err != nil {
				return
			}
		} else if count > 0 {
			l.lose(p)
		}
		if err != nil {
			return
		}
	}
}

func (p *pipe) close() {
	_ = p.incoming.Close()
	if p.outgoing != nil {
		_ = p.outgoing.Close()
	}
}

// cuts needs the mutex. A connection of nobody knows whom may be of the isolated one: with some of its connections left, it
// would lead on by heartbeats that pass.
func (l *links) cuts(p *pipe) bool {
	return l.isolated[p.to] || l.isolated[p.from] || p.from < 0 && len(l.isolated) > 0
}

func (l *links) isCut(p *pipe) bool {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.cuts(p)
}

// lose says that bytes of a connection were swallowed. Where the cut has healed since, nobody else would close it.
func (l *links) lose(p *pipe) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	p.lost = true
	if !l.cuts(p) {
		p.close()
	}
}

// memberOf is the member whose process made a connection. The kernel's table of connections is read in pieces, and one
// that changes meanwhile may show a connection in none of them; so it is asked again for a while.
func (l *links) memberOf(address net.Addr) int {
	port := address.(*net.TCPAddr).Port
	for range 20 {
		if inode, found := inodeOf(port); found {
			for member := range 3 {
				if l.owns(member, inode) {
					return member
				}
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
	return -1
}

// The inode of the socket that is bound to a port of loopback.
func inodeOf(port int) (string, bool) {
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return "", false
	}
	local := fmt.Sprintf("0100007F:%04X", port)
	for line := range strings.Lines(string(table)) {
		// One that waits for its end has no inode any more.
		if fields := strings.Fields(line); len(fields) > 9 && fields[1] == local && fields[9] != "0" {
			return fields[9], true
		}
	}
	return "", false
}

func (l *links) owns(member int, inode string) bool {
	text, err := os.ReadFile(filepath.Join(l.folder, fmt.Sprintf("member-%d.pid", member)))
	if err != nil {
		return false
	}
	pid, _, _ := strings.Cut(string(text), " ")
	folder := filepath.Join("/proc", pid, "fd")
	files, err := os.ReadDir(folder)
	if err != nil {
		return false
	}
	for _, file := range files {
		if target, err := os.Readlink(filepath.Join(folder, file.Name())); err == nil && target == "socket:["+inode+"]" {
			return true
		}
	}
	return false
}
