package mcp

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write testdata/conformance-*.txt anew")

// suite is a version of the conformance suite.
type suite struct {
	name string
	next bool
	args []string
}

func suites() []suite {
	return []suite{
		{name: "0.1.16"},
		{name: "2026-07-28", next: true, args: []string{"--requirements", "2026-07-28"}},
	}
}

// ruleForConformance lets one agent use what the suites use, by name. Two of the
// names are of things that are not there: what the server says of those is part
// of the scenarios.
const ruleForConformance = `
[[mcp_gateway.rule]]
agents = ["suite"]
tools = ["test_simple_text", "test_image_content", "test_audio_content", "test_embedded_resource", "test_multiple_content_types",
  "test_error_handling", "test_tool_with_logging", "test_logging_tool", "test_tool_with_progress", "test_trigger_tool_change",
  "test_custom_headers", "json_schema_2020_12_tool", "test_sampling", "test_elicitation", "test_elicitation_sep1034_defaults",
  "test_elicitation_sep1330_enums", "test_streaming_elicitation", "test_input_required_result_*"]
resources = ["test://**"]
prompts = ["test_simple_prompt", "test_prompt_with_arguments", "test_prompt_with_embedded_resource", "test_prompt_with_image", "test_input_required_result_prompt"]
effect = "allow"
[[mcp_gateway.rule]]
agents = ["*"]
tools = ["*"]
effect = "deny"
`

// outcome is what a suite says of each scenario: its checks, in order.
type outcome map[string][]string

func (o outcome) passes(scenario string) bool {
	has := func(status string) bool {
		return slices.ContainsFunc(o[scenario], func(c string) bool { return strings.HasSuffix(c, " "+status) })
	}
	return has("SUCCESS") && !has("FAILURE")
}

func (o outcome) passed() []string {
	var all []string
	for name := range o {
		if o.passes(name) {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return all
}

// again takes from another run what did not pass in this one.
func (o outcome) again(other outcome) {
	for name := range other {
		if !o.passes(name) {
			o[name] = other[name]
		}
	}
}

// scenarioName is the part of a directory's name that is the scenario's.
var scenarioName = regexp.MustCompile(`^server-(.*)-20\d\d-\d\d-\d\dT[0-9-]+Z$`)

// run runs a suite against an address. That scenarios fail makes it exit with an
// error, so what counts is what it wrote.
func (s suite) run(t *testing.T, url string) outcome {
	dir := t.TempDir()
	cmd := exec.Command(npm.Node(), append([]string{npm.Conformance(s.next), "server", "--url", url, "-o", dir}, s.args...)...)
	text, _ := cmd.CombinedOutput()
	files, err := filepath.Glob(filepath.Join(dir, "*", "checks.json"))
	if err != nil || len(files) < 20 {
		t.Errorf("the suite ran %d scenarios, %v:\n%s", len(files), err, text)
		return nil
	}
	got := outcome{}
	for _, f := range files {
		m := scenarioName.FindStringSubmatch(filepath.Base(filepath.Dir(f)))
		if m == nil {
			t.Errorf("a scenario in %s", f)
			continue
		}
		var checks []struct{ ID, Status, ErrorMessage string }
		raw, err := os.ReadFile(f)
		if err == nil {
			err = json.Unmarshal(raw, &checks)
		}
		if err != nil {
			t.Errorf("read %s: %v", f, err)
		}
		for _, c := range checks {
			got[m[1]] = append(got[m[1]], c.ID+" "+c.Status)
			if c.Status == "FAILURE" && testing.Verbose() {
				t.Logf("%s, %s: %s: %s", url, m[1], c.ID, c.ErrorMessage)
			}
		}
	}
	return got
}

// runAll runs a suite against several addresses at once.
func (s suite) runAll(t *testing.T, targets map[string]string) map[string]outcome {
	var mu sync.Mutex
	var all sync.WaitGroup
	got := map[string]outcome{}
	for name, url := range targets {
		all.Go(func() {
			o := s.run(t, url)
			mu.Lock()
			defer mu.Unlock()
			got[name] = o
		})
	}
	all.Wait()
	return got
}

// differences tells where what passes directly is not what is committed, and
// where something else than directly comes of it.
func differences(got map[string]outcome, committed []string) (faults []string) {
	if passed := got["directly"].passed(); !slices.Equal(committed, passed) {
		faults = append(faults, fmt.Sprintf("the reference server passes\n%q\nand the list has\n%q", passed, committed))
	}
	for name, o := range got {
		for _, scenario := range committed {
			if direct := got["directly"][scenario]; !slices.Equal(o[scenario], direct) {
				faults = append(faults, fmt.Sprintf("%s: %s is not what it is directly:\n%q\n%q", name, scenario, o[scenario], direct))
			}
		}
	}
	return faults
}

// TestConformance runs the conformance suites against the reference server, and
// again through the bridge, mutual TLS and the sidecar with a policy, with the
// server behind it over HTTP and as a command. What passes is listed in testdata,
// and must be the same; a scenario that fails directly is not in the list, and
// agreeing in failure counts for nothing.
func TestConformance(t *testing.T) {
	reference := filepath.Join(t.TempDir(), "reference")
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-trimpath", "-o", reference, "cyphers.ai/tlsmcp/test/mcp/reference").CombinedOutput(); err != nil {
		t.Fatalf("build the reference server: %v\n%s", err, out)
	}
	direct := program(t, reference, "--http", "127.0.0.1:0")
	addr := strings.TrimSpace(direct.line(""))
	overHTTP := start(t, fmt.Sprintf("[backend]\nprotocol = \"mcp\"\naddress = %q\n%s", addr, ruleForConformance))
	overStdio := start(t, fmt.Sprintf("[backend]\nprotocol = \"mcp-stdio\"\ncommand = [%q]\n%s", reference, ruleForConformance))
	targets := map[string]string{"directly": "http://" + addr + "/mcp", "bridge, HTTP behind": overHTTP.bridged("suite"), "bridge, stdio behind": overStdio.bridged("suite")}

	for _, s := range suites() {
		list := filepath.Join("testdata", "conformance-"+s.name+".txt")
		got := map[string]outcome{}
		var faults []string
		// The suites wait 800 ms for some answers, and on a busy machine look away
		// too early: of a scenario that differs it counts when it does three times.
		for range 3 {
			for name, o := range s.runAll(t, targets) {
				if got[name] == nil {
					got[name] = outcome{}
				}
				got[name].again(o)
			}
			if *update {
				if err := os.WriteFile(list, []byte(strings.Join(got["directly"].passed(), "\n")+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if faults = differences(got, strings.Fields(string(must(os.ReadFile(list))(t)))); len(faults) == 0 {
				break
			}
		}
		for _, f := range faults {
			t.Errorf("%s: %s", s.name, f)
		}
		for _, name := range slices.Sorted(maps.Keys(got)) {
			t.Logf("%s, %s: %d of %d scenarios pass", s.name, name, len(got[name].passed()), len(got[name]))
		}
	}
	overHTTP.await(`"mcp call"`, `"identity":"suite"`, `"target":"test_elicitation"`, `"outcome":"ok"`)
}

// running is a program that a test has started.
type running struct {
	t   *testing.T
	cmd *exec.Cmd
	out buffer
}

func program(t *testing.T, name string, args ...string) *running {
	t.Helper()
	p := &running{t: t, cmd: exec.Command(name, args...)}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		if t.Failed() {
			t.Logf("%s said:\n%s", name, p.out.String())
		}
	})
	return p
}

// line waits for a line that begins with something.
func (p *running) line(begin string) string {
	p.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		for line := range strings.Lines(p.out.String()) {
			if strings.HasPrefix(line, begin) && strings.HasSuffix(line, "\n") {
				return line
			}
		}
	}
	p.t.Fatalf("it says no %q:\n%s", begin, p.out.String())
	return ""
}

// has waits until it has said something.
func (p *running) has(words string) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); !strings.Contains(p.out.String(), words); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatalf("it does not say %q:\n%s", words, p.out.String())
		}
	}
}

// bridged starts a bridge for HTTP clients with an agent's certificate, and
// gives its address.
func (w *world) bridged(name string) string {
	w.t.Helper()
	line := w.connectLine(name, "--listen", "127.0.0.1:0")
	const begin = "listening on "
	return strings.TrimSpace(strings.TrimPrefix(program(w.t, line[0], line[1:]...).line(begin), begin))
}
