package boot

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The commands of the documentation are run in the booted system, page by page, as
// root. What cannot be run as it stands is listed here, with what is run instead
// or why nothing is. Everything else must end with 0.

// treatment is what is done with a command.
type treatment struct {
	run   string // instead; empty: the command as it stands
	stays bool   // it must run until it is stopped
	fails bool   // it must not end with 0
	not   string // it is not run, for this reason
}

// pages are all of them, in the order in which they are run: those that set
// something up first, those that take something away last. docs/cli.md is held to
// the help by a test of its own.
func pages(t *testing.T) []string {
	t.Helper()
	first, last := []string{"install", "quickstart", "README"}, []string{"operations", "hub"}
	files, err := filepath.Glob(project + "/docs/*.md")
	if err != nil || len(files) == 0 {
		t.Fatalf("no pages: %v", err)
	}
	var between []string
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".md")
		if name != "cli" && !slices.Contains(first, name) && !slices.Contains(last, name) {
			between = append(between, name)
		}
	}
	return slices.Concat(first, between, last)
}

const (
	noEngine  = "there is no container engine here; the images are run by a test of their own"
	noSource  = "the booted system has no source; test/readme.sh and TestTasksInTheDocsExist look whether the task is there"
	noWarrant = "HOST is another host; checks.sh does it with localhost"
)

// byPage lists what is treated otherwise than by running it.
func byPage() map[string]map[string]treatment {
	return map[string]map[string]treatment{
		"install": {
			`curl -fsSL https://packages.example/apt/tlsmcp-archive-keyring.gpg -o /usr/share/keyrings/tlsmcp-archive-keyring.gpg`: {run: `curl -fsSL file:///opt/boot/new/tlsmcp-archive-keyring.gpg -o /usr/share/keyrings/tlsmcp-archive-keyring.gpg`},
			`echo "deb [signed-by=/usr/share/keyrings/tlsmcp-archive-keyring.gpg] https://packages.example/apt stable main" > /etc/apt/sources.list.d/tlsmcp.list`: {
				run: `echo "deb [signed-by=/usr/share/keyrings/tlsmcp-archive-keyring.gpg] file:/opt/boot/new stable main" > /etc/apt/sources.list.d/tlsmcp.list`},
			`apt-get install -y ./tlsmcp_*_amd64.deb ./tlsmcp-hub_*_amd64.deb`: {run: `apt-get install -y --reinstall $(ls /opt/boot/new/pool/main/*.deb | grep -v 0.0.1)`},
			`dnf install ./tlsmcp-*.x86_64.rpm ./tlsmcp-hub-*.x86_64.rpm`:      {not: "Debian has no dnf; a test of its own installs the RPM packages"},
			`sha256sum --check --ignore-missing SHA256SUMS`:                    {run: `(cd /opt/boot/new/pool/main && sha256sum *.deb > SHA256SUMS && sha256sum --check --ignore-missing SHA256SUMS)`},
			`tar -xzf tlsmcp-*-linux-amd64.tar.gz`:                             {not: "the archives are not built for this test"},
			`ssh HOST tlsmcp mcp`:                                              {not: noWarrant},
			`./task package`:                                                   {not: noSource},
			`./task repo KEY=FINGERPRINT OUT=/srv/apt`:                         {not: noSource},
		},
		"quickstart": {
			`./task quickstart`: {not: noSource},
			`curl --cacert certs/root.pem https://localhost:8443/`: {fails: true},
		},
		"README": {
			`./task quickstart`: {not: noSource},
			`./task test`:       {not: noSource},
			`tlsmcp run --config /etc/tlsmcp/tlsmcp.toml`: {run: `tlsmcp run --config /opt/boot/second.toml`, stays: true},
		},
		"console": {
			`tlsmcp console`:            {run: `TERM=xterm script -qefc "stty cols 120 rows 40; tlsmcp console" /dev/null`, stays: true},
			`tlsmcp console --readonly`: {run: `TERM=xterm script -qefc "stty cols 120 rows 40; tlsmcp console --readonly" /dev/null`, stays: true},
		},
		"metrics": {
			`promtool check rules packaging/monitoring/alerts.yaml`:     {not: "a test beside the rules does it"},
			`promtool test rules packaging/monitoring/alerts_test.yaml`: {not: "a test beside the rules does it"},
		},
		"operations": {
			`tlsmcp agents`: {not: "no MCP server is behind this sidecar; test/mcp asks one that has"},
			`tlsmcpd --config /etc/tlsmcp/tlsmcp.toml`:    {run: `tlsmcpd --config /opt/boot/second.toml`, stays: true},
			`tlsmcp run --config /etc/tlsmcp/tlsmcp.toml`: {run: `tlsmcp run --config /opt/boot/second.toml`, stays: true},
		},
		"hub": {
			`tlsmcp-hub serve --data /var/lib/tlsmcp-hub --socket /run/tlsmcp-hub/hub.sock`: {run: `tlsmcp-hub serve --data /root/doc-hub --socket /root/doc-hub.sock`, stays: true},
			`tlsmcp-hub serve --data /var/lib/tlsmcp-hub --listen 0.0.0.0:9443 --name hub.example --public-url https://hub.example:9443`: {
				run: `tlsmcp-hub serve --data /root/doc-hub --socket /root/doc-hub.sock --listen 0.0.0.0:9443 --name hub.example --public-url https://hub.example:9443`, stays: true},
			`tlsmcp-hub token create --data /var/lib/tlsmcp-hub --role admin > admin.token`: {run: `tlsmcp-hub token create --data /root/doc-hub --role admin > admin.token`},
			`tlsmcp hub join TOKEN`:                                                                                      {not: "this host has joined its own Hub; test/e2e joins a fleet"},
			`tlsmcp cert revoke ID --reason key_compromise --wait`:                                                       {run: `tlsmcp cert revoke $(tlsmcp cert issue --type client --service doc --out doc-certs --json | sed -n 's/.*"id": *"\([^"]*\)".*/\1/p' | head -1) --reason key_compromise --wait`},
			`tlsmcp-hub ca export-root-key --data DIR --out root.key`:                                                    {run: `tlsmcp-hub ca export-root-key --data /root/doc-hub --out root.key`},
			`tlsmcp-hub ca take-root-offline --data DIR --yes`:                                                           {run: `tlsmcp-hub ca take-root-offline --data /root/doc-hub --yes`},
			`tlsmcp hub ca rotate --root-key root.key`:                                                                   {not: "operations.md has the same, with the Hub that runs"},
			`tlsmcp-hub ca import --data DIR --cert chain.pem --key issuing.key`:                                         {not: "there is no CA of another's here; tests of the Hub import one"},
			`curl --cacert root.pem -H "Authorization: Bearer $(cat admin.token)" https://hub.example:9443/api/v1/fleet`: {not: "no Hub listens on a port here; test/e2e calls REST"},
		},
		"containers": {
			`docker load -i tlsmcp-VERSION.oci.tar`:     {not: noEngine},
			`docker load -i tlsmcp-hub-VERSION.oci.tar`: {not: noEngine},
			`docker compose up -d hub`:                  {not: noEngine},
			`docker compose exec hub /usr/bin/tlsmcp hub token create --join app --hub-socket /var/lib/tlsmcp-hub/hub.sock > join-token`: {not: noEngine},
			`docker compose up -d`:                  {not: noEngine},
			`kubectl apply -k packaging/kubernetes`: {not: "there is no cluster; the manifests are decoded by a test of their own"},
		},
	}
}

var (
	block   = regexp.MustCompile("(?ms)^ *```(sh|console|bash)\n(.*?)^ *```$")
	comment = regexp.MustCompile(`\s+# .*$`)
)

// commands are those of a page's blocks, one string each: lines that go on are
// joined, and comments left out. In a console block they begin with "$ ".
func commands(page string) (all []string) {
	for _, b := range block.FindAllStringSubmatch(page, -1) {
		text := strings.ReplaceAll(b[2], "\\\n", "")
		for line := range strings.Lines(text) {
			line = strings.TrimSpace(line)
			if b[1] == "console" {
				var typed bool
				if line, typed = strings.CutPrefix(line, "$ "); !typed {
					continue
				}
			}
			line = comment.ReplaceAllString(line, "")
			if line != "" && !strings.HasPrefix(line, "#") {
				all = append(all, strings.Join(strings.Fields(line), " "))
			}
		}
	}
	return all
}

func TestCommandsAreFound(t *testing.T) {
	got := commands("```sh\na  b    # why\n# nothing\nc \\\n  d\n```\n```toml\nx = 1\n```\n\n  ```console\n  $ e 'f # g'\n  said\n  ```\n")
	if want := []string{"a b", "c d", "e 'f"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func pageText(t *testing.T, name string) string {
	t.Helper()
	file := filepath.Join(project, "docs", name+".md")
	if name == "README" {
		file = filepath.Join(project, "README.md")
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestTheListsAreNotStale holds the lists above to the pages.
func TestTheListsAreNotStale(t *testing.T) {
	for page, list := range byPage() {
		found := commands(pageText(t, page))
		for _, command := range slices.Sorted(maps.Keys(list)) {
			if !slices.Contains(found, command) {
				t.Errorf("%s does not have the command %s", page, command)
			}
			if tr := list[command]; tr.not != "" && tr.run != "" {
				t.Errorf("%s: %s is both run and not", page, command)
			}
		}
	}
}

// TestTasksInTheDocsExist looks for each task that a page names.
func TestTasksInTheDocsExist(t *testing.T) {
	text, err := os.ReadFile(project + "/Taskfile.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range pages(t) {
		for _, m := range regexp.MustCompile(`\./task ([a-z][a-z-]*)`).FindAllStringSubmatch(pageText(t, page), -1) {
			if !strings.Contains(string(text), "\n  "+m[1]+":\n") {
				t.Errorf("%s: ./task %s: no such task", page, m[1])
			}
		}
	}
}

// writeDocs writes the script that runs the pages' commands.
func writeDocs(t *testing.T, dir string) {
	t.Helper()
	var b strings.Builder
	for _, page := range pages(t) {
		treated := byPage()[page]
		fmt.Fprintf(&b, "page %s\n", page)
		for _, c := range commands(pageText(t, page)) {
			how, special := treated[c]
			switch {
			case how.not != "":
				continue
			case !special || how.run == "":
				how.run = c
			}
			mode := "ends"
			if how.stays {
				mode = "stays"
			} else if how.fails {
				mode = "fails"
			}
			fmt.Fprintf(&b, "doc %s %s %s\n", mode, quote(page+": "+c), quote(how.run))
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "docs.sh"), []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// quote makes one word of a shell's.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
