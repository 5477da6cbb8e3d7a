// Command suite runs the tests of the API server's storage layer twice: on the etcd that they embed, as they are
// shipped, and on the server that MAINSTAY_BIN names. It prints how many ran and passed on each, and fails where one
// that passes on etcd does not pass on mainstay.
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

var (
	source  = flag.String("source", "", "a copy of the module k8s.io/apiserver")
	overlay = flag.String("overlay", "", "what is to be laid over it so that its tests start mainstay")
	folder  = flag.String("folder", "", "where what the tests print goes")
	only    = flag.String("run", "", "run only the tests that match, as go test has it")
)

// What shows that a package has tests that need a server.
var startsServer = regexp.MustCompile(`testserver\.RunEtcd\(|NewUnsecuredEtcd3TestClientServer\(`)

func main() {
	flag.Parse()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "suite:", err)
		os.Exit(1)
	}
}

func run() error {
	if *source == "" || *overlay == "" || *folder == "" || os.Getenv("MAINSTAY_BIN") == "" {
		return errors.New("needs -source, -overlay, -folder and MAINSTAY_BIN")
	}
	packages, err := packagesWithServer(*source)
	if err != nil {
		return err
	}
	version, err := embeddedEtcd(*source)
	if err != nil {
		return err
	}

	etcd, err := judge("etcd", packages)
	if err != nil {
		return err
	}
	mainstay, err := judge("mainstay", packages, "-overlay="+*overlay)
	if err != nil {
		return err
	}
	withServer, err := testsWithServer(filepath.Join(*folder, "with-a-server"), *source)
	if err != nil {
		return err
	}

	report := compare(etcd, mainstay, withServer)
	fmt.Print(report.table("etcd " + version))
	if *only == "" {
		return report.verdict(packages)
	}
	return report.verdict(nil)
}

// judge runs the tests of these packages, and again, alone, those that failed: they wait for milliseconds where a busy
// machine takes longer. What passes only then is told, and has to pass each of several times: once would be luck.
func judge(system string, packages []string, flags ...string) (results, error) {
	started := time.Now()
	first, err := goTest(system+".json", *only, packages, flags...)
	if err != nil {
		return nil, err
	}
	for _, name := range packages {
		failed := first.failedIn(name)
		if len(failed) == 0 {
			continue
		}
		pattern := "^(" + strings.Join(failed, "|") + ")$"
		again, err := goTest(system+"-again.json", pattern, []string{name}, append(slices.Clone(flags), "-count=5")...)
		if err != nil {
			return nil, err
		}
		first.takeSecondTry(again)
	}
	fmt.Fprintf(os.Stderr, "  %6d ms  the tests on %s\n", time.Since(started).Milliseconds(), system)
	return first, nil
}

// One after the other, for each package starts servers enough.
func goTest(log, pattern string, packages []string, flags ...string) (results, error) {
	arguments := append([]string{"test", "-json", "-count=1", "-p=1", "-timeout=30m"}, flags...)
	if pattern != "" {
		arguments = append(arguments, "-run="+pattern)
	}
	command := exec.Command("go", append(arguments, packages...)...)
	command.Dir = *source
	command.Stderr = os.Stderr
	command.Env = append(os.Environ(), "GOWORK=off", "TESTS_WITH_A_SERVER="+filepath.Join(*folder, "with-a-server"))
	output, err := command.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return nil, err
	}
	path := filepath.Join(*folder, log)
	if err := os.WriteFile(path, output, 0o644); err != nil {
		return nil, err
	}
	found, err := parse(strings.NewReader(string(output)))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return found, nil
}

// The packages below pkg/ of which a test starts a server, as `./` paths.
func packagesWithServer(source string) ([]string, error) {
	var packages []string
	err := filepath.WalkDir(filepath.Join(source, "pkg"), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil || !startsServer.Match(text) {
			return err
		}
		name, err := filepath.Rel(source, filepath.Dir(path))
		if name = "./" + name; err == nil && !slices.Contains(packages, name) {
			packages = append(packages, name)
		}
		return err
	})
	if err == nil && len(packages) == 0 {
		err = fmt.Errorf("%s: no package has a test that starts a server", source)
	}
	slices.Sort(packages)
	return packages, err
}

// The version of etcd that the tests embed.
func embeddedEtcd(source string) (string, error) {
	text, err := os.ReadFile(filepath.Join(source, "go.mod"))
	if err != nil {
		return "", err
	}
	found := regexp.MustCompile(`(?m)^\s*go\.etcd\.io/etcd/server/v3 v(\S+)`).FindSubmatch(text)
	if found == nil {
		return "", fmt.Errorf("%s/go.mod requires no etcd server", source)
	}
	return string(found[1]), nil
}

// The tests, without what they run inside, that have started a server, by package.
func testsWithServer(path, source string) (map[test]bool, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("no test has started mainstay: %w", err)
	}
	defer file.Close()
	found := map[test]bool{}
	for lines := bufio.NewScanner(file); lines.Scan(); {
		folder, name, _ := strings.Cut(lines.Text(), " ")
		relative, err := filepath.Rel(source, folder)
		if err != nil {
			return nil, err
		}
		found[test{"./" + relative, outermost(name)}] = true
	}
	return found, nil
}
