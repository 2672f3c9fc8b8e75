package boot

// What is done with a command that is not run as it stands, and why.

// treatment is what is done with a command. The zero value runs it as it stands,
// and it must end with 0.
type treatment struct {
	run   string // instead
	stays bool   // it must run until it is stopped
	fails bool   // it must not end with 0
	by    string // it is not run here: that file, with these words in it, runs it
	not   string // nothing runs it, for this reason
}

const (
	// What these need is made by the pages before: quickstart comes first. What the
	// scan finds is that certificates name no CRL, because this Hub is on no port.
	scanHere = "tlsmcp scan --ca /root/docs/quickstart/certs/root.pem "
	quick    = "cmd/tlsmcp/quickstart_test.go: quickstartOnce"
	noEngine = "no container engine runs here; the images are unpacked and run by image_test.go, and compose.yaml is only parsed"
)

// everywhere are commands that stand on several pages.
func everywhere() map[string]treatment {
	return map[string]treatment{
		`./task quickstart`:       {by: quick},
		`tlsmcp console`:          {run: `TERM=xterm script -qefc "stty cols 120 rows 40; tlsmcp console" /dev/null`, stays: true},
		`tlsmcp scan example.org`: {run: scanHere + `localhost:8443`},
		`tlsmcp scan --expect-mtls --ca ca.pem payments.internal:8443`:                    {run: scanHere + `--expect-mtls localhost:8443`},
		`tlsmcp score --fail-under 90`:                                                    {run: `tlsmcp score --fail-under 50`},
		`tlsmcp mcp serve --listen 127.0.0.1:3001`:                                        {stays: true},
		`tlsmcp mcp serve --self-secure --allow-writes --operator 'spiffe://*/agent/ops'`: {run: `mkdir -p /run/tlsmcp-mcp; tlsmcp mcp serve --self-secure --allow-writes --operator 'spiffe://*/agent/ops'`, stays: true},
		`tlsmcp mcp wrap -- npx -y @modelcontextprotocol/server-filesystem /srv/docs`:     {by: `test/mcp/wrap_test.go: npm.Server("filesystem")`},
		`tlsmcp run --config /etc/tlsmcp/tlsmcp.toml`:                                     {run: `tlsmcp run --config /opt/boot/second.toml`, stays: true},
	}
}

// byPage are those of one page.
func byPage() map[string]map[string]treatment {
	return map[string]map[string]treatment{
		"install": {
			`curl -fsSL https://packages.example/apt/tlsmcp-archive-keyring.gpg -o /usr/share/keyrings/tlsmcp-archive-keyring.gpg`: {run: `curl -fsSL file:///opt/boot/new/tlsmcp-archive-keyring.gpg -o /usr/share/keyrings/tlsmcp-archive-keyring.gpg`},
			`echo "deb [signed-by=/usr/share/keyrings/tlsmcp-archive-keyring.gpg] https://packages.example/apt stable main" > /etc/apt/sources.list.d/tlsmcp.list`: {
				run: `echo "deb [signed-by=/usr/share/keyrings/tlsmcp-archive-keyring.gpg] file:/opt/boot/new stable main" > /etc/apt/sources.list.d/tlsmcp.list`},
			`apt-get install -y ./tlsmcp_*_amd64.deb ./tlsmcp-hub_*_amd64.deb`: {run: `apt-get install -y --reinstall $(ls /opt/boot/new/pool/main/*.deb | grep -v 0.0.1)`},
			`dnf install ./tlsmcp-*.x86_64.rpm ./tlsmcp-hub-*.x86_64.rpm`:      {by: `test/boot/rpm_test.go: "-i", "--nodeps"`},
			`sha256sum --check --ignore-missing SHA256SUMS`:                    {run: `(cd /opt/boot/new/pool/main && sha256sum *.deb > SHA256SUMS && sha256sum --check --ignore-missing SHA256SUMS)`},
			`tar -xzf tlsmcp-*-linux-amd64.tar.gz`:                             {not: "making the archives compiles the programs for three systems, which takes minutes"},
			`ssh HOST tlsmcp mcp`:                                              {run: `ssh -o StrictHostKeyChecking=accept-new alice@localhost tlsmcp mcp`},
			`apt-get install -y tlsmcp-fips tlsmcp-hub-fips`:                   {by: `test/boot/checks.sh: apt install tlsmcp-fips tlsmcp-hub-fips`},
			`dnf swap tlsmcp tlsmcp-fips`:                                      {by: `test/boot/rpm_test.go: "--replacefiles"`},
			`dnf swap tlsmcp-hub tlsmcp-hub-fips`:                              {by: `test/boot/rpm_test.go: "--replacefiles"`},
			`./task package -- --fips140 certified`:                            {by: `test/boot/boot_test.go: "--fips140", "certified"`},
			`./task repo DIST=dist-fips KEY=FINGERPRINT OUT=/srv/apt`:          {by: `test/boot/boot_test.go: "packaging/repo/repo.sh", b.fips`},
			`./task package`: {by: `test/boot/boot_test.go: "./packaging/build"`},
			`./task repo KEY=FINGERPRINT OUT=/srv/apt`: {by: `test/boot/boot_test.go: "packaging/repo/repo.sh"`},
		},
		"quickstart": {
			`curl --cacert certs/root.pem https://localhost:8443/`: {fails: true},
		},
		"README": {
			`./task test`: {by: `Taskfile.yml: test/all.sh`},
		},
		"audit": {
			`tlsmcp audit verify /backup/audit`:   {run: `mkdir -p /backup && cp -r /var/lib/tlsmcp/audit /backup && tlsmcp audit verify /backup/audit`},
			`tlsmcp audit tail -f --kind refused`: {stays: true},
		},
		"cli": {
			`tlsmcp audit verify /backup/audit --checkpoints held.json`: {
				run: `grep -ho '"checkpoint":{[^}]*}' /backup/audit/* | tail -1 | cut -d: -f2- > held.json && test -s held.json && tlsmcp audit verify /backup/audit --checkpoints held.json`},
			`tlsmcp cert issue --type server --service web --host web.prod.example`: {
				run: `tlsmcp hub policy set web --dns-name web.prod.example && tlsmcp cert issue --type server --service web --host web.prod.example`},
			`tlsmcp cert renew --cert web.crt --key web.key --watch --exec 'systemctl reload nginx'`: {
				run: `tlsmcp cert issue --type client --service renewed --out . && tlsmcp cert renew --cert renewed.crt --key renewed.key --watch --exec 'systemctl reload nginx'`, stays: true},
			`tlsmcp cert revoke 01a20ce4-561f-70f5-9d97-a5472852cb20 --reason key_compromise --wait`: {
				run: `tlsmcp cert revoke $(tlsmcp cert issue --type client --service doc --out doc-certs --json | sed -n 's/.*"id": *"\([^"]*\)".*/\1/p' | head -1) --reason key_compromise --wait`},
			`tlsmcp console --readonly --theme light`: {run: `TERM=xterm script -qefc "stty cols 120 rows 40; tlsmcp console --readonly --theme light" /dev/null`, stays: true},
			`tlsmcp hub policy get payment-api > p.json; $EDITOR p.json; tlsmcp hub policy set payment-api --file p.json`: {
				run: `EDITOR=true; tlsmcp hub policy get payment-api > p.json; $EDITOR p.json; tlsmcp hub policy set payment-api --file p.json`},
			`tlsmcp mcp connect https://files.example:8443/mcp --cert agent.crt --key agent.key --ca ca.crt`: {
				by: `test/script/testdata/mcp.txtar: exec tlsmcp mcp connect https://$TOOLS/mcp --cert bot.crt --key bot.key --ca ca.crt`},
			`tlsmcp mcp connect https://files.example:8443/mcp --identity claude-ops --hub https://hub.example:9443 --token-file token`: {
				by: `test/e2e/bridge_test.go: "--identity", "claude", "--identity-dir", dir`},
			`tlsmcp mcp install --client vscode --project . files https://files.example:8443/mcp --cert agent.crt --key agent.key --ca ca.crt --dry-run`: {
				run: `tlsmcp cert issue --type agent --service agent --out . && tlsmcp hub ca root > ca.crt && tlsmcp mcp install --client vscode --project . files https://files.example:8443/mcp --cert agent.crt --key agent.key --ca ca.crt --dry-run`},
			`ssh HOST tlsmcp mcp serve --allow-writes`: {run: `ssh -o StrictHostKeyChecking=accept-new alice@localhost tlsmcp mcp serve --allow-writes`},
			`tlsmcp mcp wrap --path rw:/srv/data --env API_BASE=http://127.0.0.1:9000 -- ./server`: {
				run: `mkdir -p /srv/data; printf '#!/bin/sh\nexec /usr/bin/tlsmcp quickstart mcp-server\n' > server; chmod +x server; tlsmcp mcp wrap --path rw:/srv/data --env API_BASE=http://127.0.0.1:9000 -- ./server`, stays: true},
			`tlsmcp scan --starttls postgres --format sarif db.internal > scan.sarif`: {run: scanHere + `--starttls postgres --format sarif localhost:5432 > scan.sarif`},
			`tlsmcp scan --targets fleet.txt --fail-on medium`:                        {run: `echo localhost:8443 > fleet.txt; ` + scanHere + `--targets fleet.txt --fail-on medium; test $? = 1`},
			`tlsmcp score --service payment-api --diff 7d`:                            {run: `tlsmcp score --service $(hostname) --diff 7d`},
			`tlsmcp scan pay.example --format json | tlsmcp score --service payment-api --add-scan -`: {
				run: scanHere + `localhost:8443 --format json | tlsmcp score --service $(hostname) --add-scan -`},
		},
		"console": {
			`tlsmcp console --readonly`: {run: `TERM=xterm script -qefc "stty cols 120 rows 40; tlsmcp console --readonly" /dev/null`, stays: true},
		},
		"mcp": {
			`tlsmcp mcp tools`:                   {by: `test/script/testdata/mcp.txtar: exec tlsmcp mcp tools`},
			`tlsmcp mcp tools --show delete_all`: {by: `test/script/testdata/mcp.txtar: exec tlsmcp mcp tools --show echo`},
			`tlsmcp mcp approve delete_all`:      {by: `test/script/testdata/mcp.txtar: exec tlsmcp mcp approve --json echo`},
		},
		"mcp-server": {
			`tlsmcp mcp serve --listen 127.0.0.1:3001 --transport sse`: {stays: true},
		},
		"metrics": {
			`promtool check rules packaging/monitoring/alerts.yaml`:     {by: `packaging/monitoring/monitoring_test.go: {"check", "rules", "--lint-fatal", "alerts.yaml"}`},
			`promtool test rules packaging/monitoring/alerts_test.yaml`: {by: `packaging/monitoring/monitoring_test.go: {"test", "rules", "alerts_test.yaml"}`},
		},
		"scan": {
			`tlsmcp scan --starttls postgres db.internal`: {run: scanHere + `--starttls postgres localhost:5432`},
			`tlsmcp scan --targets fleet.txt --format sarif --fail-on medium > scan.sarif`: {
				run: `echo localhost:8443 > fleet.txt; ` + scanHere + `--targets fleet.txt --format sarif --fail-on medium > scan.sarif; test $? = 1 && grep -q cert-revocation scan.sarif`},
		},
		"score": {
			`tlsmcp score --service pay --diff 7d`: {run: `tlsmcp score --service $(hostname) --diff 7d`},
			`tlsmcp alert test`:                    {by: `test/e2e/score_test.go: h.cli("alert", "test")`},
			`tlsmcp-hub ca export-root-key --out root.key`: {
				run: `tlsmcp-hub init --data /root/score-hub && tlsmcp-hub ca export-root-key --data /root/score-hub --out root.key`},
			`tlsmcp-hub ca take-root-offline --yes`: {run: `tlsmcp-hub ca take-root-offline --data /root/score-hub --yes`},
		},
		"operations": {
			`tlsmcp agents`:                            {by: `test/script/testdata/mcp.txtar: exec tlsmcp agents`},
			`systemctl enable --now tlsmcpd.socket`:    {run: `systemctl enable --now tlsmcpd.socket && systemctl start tlsmcpd`},
			`tlsmcpd --config /etc/tlsmcp/tlsmcp.toml`: {run: `tlsmcpd --config /opt/boot/second.toml`, stays: true},
		},
		"hub": {
			`tlsmcp-hub serve --data /var/lib/tlsmcp-hub --socket /run/tlsmcp-hub/hub.sock`: {run: `tlsmcp-hub serve --data /root/doc-hub --socket /root/doc-hub.sock`, stays: true},
			`tlsmcp-hub serve --data /var/lib/tlsmcp-hub --listen 0.0.0.0:9443 --name hub.example --public-url https://hub.example:9443`: {
				run: `tlsmcp-hub serve --data /root/doc-hub --socket /root/doc-hub.sock --listen 0.0.0.0:9443 --name hub.example --public-url https://hub.example:9443`, stays: true},
			`tlsmcp-hub token create --data /var/lib/tlsmcp-hub --role admin > admin.token`: {run: `tlsmcp-hub token create --data /root/doc-hub --role admin > admin.token`},
			`tlsmcp hub join TOKEN`: {run: `with_hub 'tlsmcp hub join --config /opt/boot/elsewhere.toml $(tlsmcp hub token create --join payment-api --hub-socket /root/doc-hub.sock)'`},
			`tlsmcp cert revoke ID --reason key_compromise --wait`: {
				run: `tlsmcp cert revoke $(tlsmcp cert issue --type client --service doc --out doc-certs --json | sed -n 's/.*"id": *"\([^"]*\)".*/\1/p' | head -1) --reason key_compromise --wait`},
			`tlsmcp-hub ca export-root-key --data DIR --out root.key`: {run: `tlsmcp-hub ca export-root-key --data /root/doc-hub --out root.key`},
			`tlsmcp-hub ca take-root-offline --data DIR --yes`:        {run: `tlsmcp-hub ca take-root-offline --data /root/doc-hub --yes`},
			`tlsmcp hub ca rotate --root-key root.key`:                {run: `with_hub 'tlsmcp hub ca rotate --root-key root.key --hub-socket /root/doc-hub.sock'`},
			`tlsmcp-hub ca import --data DIR --cert chain.pem --key issuing.key`: {
				by: `test/script/testdata/hub-program.txtar: exec tlsmcp-hub ca import --data hub --cert own.pem --key own.key`},
			`tlsmcp hub ca root > root.pem`: {run: `with_hub 'tlsmcp hub ca root --hub-socket /root/doc-hub.sock > root.pem'`},
			`curl --cacert root.pem -H "Authorization: Bearer $(cat admin.token)" https://hub.example:9443/api/v1/fleet`: {
				run: `with_hub 'curl -f --cacert root.pem -H "Authorization: Bearer $(cat admin.token)" https://hub.example:9443/api/v1/fleet'`},
		},
		"containers": {
			`docker load -i tlsmcp-VERSION.oci.tar`:     {not: noEngine},
			`docker load -i tlsmcp-hub-VERSION.oci.tar`: {not: noEngine},
			`docker compose up -d hub`:                  {not: noEngine},
			`docker compose exec hub /usr/bin/tlsmcp hub token create --join app --hub-socket /var/lib/tlsmcp-hub/hub.sock > join-token`: {
				by: `test/boot/image.sh: cli hub token create --join app >`},
			`docker compose up -d`:                  {not: noEngine},
			`kubectl apply -k packaging/kubernetes`: {not: "there is no cluster; packaging/kubernetes/validate decodes the manifests"},
		},
	}
}
