package compat

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestEtcdctl plays the scripts testdata/*.txt, each on a member of its own where MAINSTAY_BIN
// says how to start one. A script is a dialogue:
//
//	# a comment
//	$ COMMAND         runs in bash; the lines below are all it may print
//	[N]               as the last of these lines: the exit code, where it is not 0
//	& NAME COMMAND    starts a command that goes on
//	< NAME            the lines below are what it prints next, empty ones left out
//	! NAME            interrupts it
//
// In expected lines ${name} stands for a variable and {name=REGEX} sets one; commands see variables
// in their environment. $P is a prefix for keys, of the script's own. Log lines of etcdctl (JSON,
// on stderr) are not looked at.
func TestEtcdctl(t *testing.T) {
	if os.Getenv("ETCDCTL") == "" {
		t.Fatal("set ETCDCTL to the etcdctl to use")
	}
	scripts, err := filepath.Glob("testdata/*.txt")
	must(t, err)
	if len(scripts) == 0 {
		t.Fatal("no scripts")
	}
	for _, path := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			script, err := os.ReadFile(path)
			must(t, err)
			d := &dialogue{t: t, path: path, variables: map[string]string{
				"P":                 prefix(t),
				"ENDPOINT":          endpoints[0],
				"ETCDCTL_ENDPOINTS": strings.Join(endpoints, ","),
				// To log in takes a while where the machine is busy; etcdctl would give up after 2 s.
				"ETCDCTL_DIAL_TIMEOUT":    deadline.String(),
				"ETCDCTL_COMMAND_TIMEOUT": deadline.String(),
			}, jobs: map[string]*job{}}
			if binary := os.Getenv("MAINSTAY_BIN"); binary != "" && os.Getenv("MAINSTAY_ENDPOINTS") == "" {
				member, endpoint, err := startMember(binary, t.TempDir(), "--bcrypt-cost=4")
				must(t, err)
				t.Cleanup(func() { must(t, stopMember(member)) })
				d.variables["ENDPOINT"], d.variables["ETCDCTL_ENDPOINTS"] = endpoint, endpoint
			}
			t.Cleanup(d.end)
			d.play(string(script))
		})
	}
}

type dialogue struct {
	t         *testing.T
	path      string
	line      int
	variables map[string]string
	jobs      map[string]*job
}

// job is a command that goes on; lines carries what it prints until it ends.
type job struct {
	command *exec.Cmd
	lines   chan string
}

var isStep = regexp.MustCompile(`^[$&<!#]( |$)`)

func (d *dialogue) play(script string) {
	lines := strings.Split(script, "\n")
	for i := 0; i < len(lines); {
		d.line = i + 1
		step := lines[i]
		i++
		var expected []string
		for i < len(lines) && !isStep.MatchString(lines[i]) {
			expected = append(expected, lines[i])
			i++
		}
		expected = trimBlank(expected)
		verb, rest, _ := strings.Cut(step, " ")
		name, command, _ := strings.Cut(rest, " ")
		switch verb {
		case "#", "":
		case "$":
			d.run(rest, expected)
		case "&":
			d.start(name, command)
		case "<":
			d.receive(name, expected)
		case "!":
			d.interrupt(name)
		default:
			d.fail("no step: %q", step)
		}
	}
}

func (d *dialogue) bash(command string) *exec.Cmd {
	run := exec.Command("bash", "-c", command)
	run.Env = append(os.Environ(), "PATH="+filepath.Dir(os.Getenv("ETCDCTL"))+":"+os.Getenv("PATH"))
	for name, value := range d.variables {
		run.Env = append(run.Env, name+"="+value)
	}
	run.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return run
}

func (d *dialogue) run(command string, expected []string) {
	run := d.bash("exec 2>&1; " + command)
	hung := time.AfterFunc(deadline, func() { _ = syscall.Kill(-run.Process.Pid, syscall.SIGKILL) })
	output, err := run.Output()
	hung.Stop()
	code := 0
	if run.ProcessState != nil {
		code = run.ProcessState.ExitCode()
	} else if err != nil {
		d.fail("%s: %v", command, err)
	}
	var got []string
	for _, line := range strings.Split(string(output), "\n") {
		if !strings.HasPrefix(line, `{"level":`) {
			got = append(got, line)
		}
	}
	got = trimBlank(got)
	if code != 0 {
		got = append(got, fmt.Sprintf("[%d]", code))
	}
	d.compare(command, got, expected)
}

func (d *dialogue) start(name, command string) {
	run := d.bash("exec " + command)
	output, err := run.StdoutPipe()
	must(d.t, err)
	must(d.t, run.Start())
	started := &job{command: run, lines: make(chan string, 1024)}
	d.jobs[name] = started
	go func() {
		reader := bufio.NewReader(output)
		for {
			line, err := reader.ReadString('\n')
			if err != nil {
				if err != io.EOF || line != "" {
					started.lines <- line
				}
				close(started.lines)
				return
			}
			started.lines <- strings.TrimSuffix(line, "\n")
		}
	}()
}

func (d *dialogue) receive(name string, expected []string) {
	late := time.After(deadline)
	expected = slices.DeleteFunc(expected, func(line string) bool { return line == "" })
	var got []string
	for len(got) < len(expected) {
		select {
		case line, open := <-d.jobs[name].lines:
			if !open {
				d.fail("%s ended after %q, want %q", name, got, expected)
			}
			if line != "" {
				got = append(got, line)
			}
		case <-late:
			d.fail("%s printed %q, want %q", name, got, expected)
		}
	}
	d.compare(name, got, expected)
}

func (d *dialogue) interrupt(name string) {
	stopped := d.jobs[name]
	delete(d.jobs, name)
	must(d.t, stopped.command.Process.Signal(os.Interrupt))
	ended := make(chan struct{})
	go func() {
		for line := range stopped.lines {
			if line != "" {
				d.t.Errorf("%s:%d: %s printed %q at its end", d.path, d.line, name, line)
			}
		}
		_ = stopped.command.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(deadline):
		d.fail("%s did not end", name)
	}
}

// end kills what a failed script left running.
func (d *dialogue) end() {
	for _, left := range d.jobs {
		_ = syscall.Kill(-left.command.Process.Pid, syscall.SIGKILL)
		_ = left.command.Wait()
	}
}

var placeholder = regexp.MustCompile(`\$\{(\w+)\}|\{(\w+)=((?:[^{}]|\{\d+\})*)\}`)

func (d *dialogue) compare(what string, got, expected []string) {
	d.t.Helper()
	if len(got) != len(expected) {
		d.fail("%s\n got: %s\nwant: %s", what, strings.Join(got, "\n      "), strings.Join(expected, "\n      "))
	}
	for i, want := range expected {
		var names []string
		pattern, rest := "^", want
		for {
			at := placeholder.FindStringSubmatchIndex(rest)
			if at == nil {
				break
			}
			pattern += regexp.QuoteMeta(rest[:at[0]])
			if at[2] >= 0 {
				pattern += regexp.QuoteMeta(d.variables[rest[at[2]:at[3]]])
			} else {
				names = append(names, rest[at[4]:at[5]])
				pattern += "(" + rest[at[6]:at[7]] + ")"
			}
			rest = rest[at[1]:]
		}
		pattern += regexp.QuoteMeta(rest) + "$"
		found := regexp.MustCompile(pattern).FindStringSubmatch(got[i])
		if found == nil {
			d.fail("%s\n got: %s\nwant: %s", what, got[i], want)
		}
		for j, name := range names {
			d.variables[name] = found[j+1]
		}
	}
}

func (d *dialogue) fail(format string, arguments ...any) {
	d.t.Helper()
	d.t.Fatalf("%s:%d: %s", d.path, d.line, fmt.Sprintf(format, arguments...))
}

func trimBlank(lines []string) []string {
	for len(lines) > 0 && lines[0] == "" {
		lines = lines[1:]
	}
	for len(lines) > 0 && lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	return lines
}
