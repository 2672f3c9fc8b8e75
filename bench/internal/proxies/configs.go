package proxies

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"cyphers.ai/tlsmcp/bench/internal/certs"
)

// nginx serves with one worker.
type nginx struct{}

func (nginx) configure(s Setup, addr string) (string, error) {
	user := "" // without root it stays who it is
	if os.Getuid() == 0 {
		user = "user root;" // the run's directory is closed to others
	}
	pair := certs.PairIn(s.Dir, "server")
	return write(s.Dir, "nginx.conf", fmt.Sprintf(`daemon off;
%s
worker_processes 1;
worker_rlimit_nofile %d;
pid %[3]s/nginx.pid;
error_log %[3]s/error.log crit;
events { worker_connections %[2]d; }
http {
  access_log off;
  client_body_temp_path %[3]s/body;
  proxy_temp_path %[3]s/proxy;
  fastcgi_temp_path %[3]s/fastcgi;
  uwsgi_temp_path %[3]s/uwsgi;
  scgi_temp_path %[3]s/scgi;
  client_max_body_size 0;
  keepalive_timeout 600s;
  keepalive_requests 1000000000;
  upstream origin {
    server %[4]s;
    keepalive 256;
    keepalive_requests 1000000000;
    keepalive_timeout 600s;
  }
  server {
    listen %[5]s ssl http2 backlog=4096;
    ssl_certificate %[6]s;
    ssl_certificate_key %[7]s;
    ssl_client_certificate %[8]s;
    ssl_verify_client on;
    ssl_protocols TLSv1.3;
    ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
    ssl_session_cache off;
    ssl_session_tickets off;
    location / {
      proxy_pass http://origin;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto $scheme;
      # Bodies are streamed, as the other two stream them, not spooled to disk.
      proxy_request_buffering off;
      proxy_max_temp_file_size 0;
    }
  }
}
`, user, s.Descriptors, s.Dir, s.Backend, addr, pair.CertFile, pair.KeyFile, s.Authority.CAFile))
}

func (nginx) arguments(s Setup, config string) []string {
	return []string{"-p", s.Dir, "-e", filepath.Join(s.Dir, "error.log"), "-c", config}
}

func (nginx) reload(root *os.Process) error { return root.Signal(syscall.SIGHUP) }
func (nginx) stop() syscall.Signal          { return syscall.SIGTERM }

// haproxy serves with one thread under a master, which is how it is reloaded.
type haproxy struct{}

func (haproxy) configure(s Setup, addr string) (string, error) {
	return write(s.Dir, "haproxy.cfg", fmt.Sprintf(`global
  nbthread 1
  no strict-limits
  ulimit-n %d
  maxconn %d
  hard-stop-after 10s
  stats socket %s/haproxy.sock mode 600 level admin expose-fd listeners
  ssl-default-bind-options ssl-min-ver TLSv1.3 no-tls-tickets
  ssl-default-bind-ciphersuites TLS_AES_128_GCM_SHA256
  tune.ssl.cachesize 0
defaults
  mode http
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  timeout http-keep-alive 600s
  option http-keep-alive
  option http-ignore-probes
frontend front
  bind %s backlog 4096 ssl crt %s ca-file %s verify required alpn h2,http/1.1
  option forwardfor
  http-request set-header X-Forwarded-Proto https
  default_backend back
backend back
  http-reuse always
  server origin %s
`, s.Descriptors, s.Descriptors*11/20, s.Dir, addr, certs.PairIn(s.Dir, "server").Combined, s.Authority.CAFile, s.Backend))
}

func (haproxy) arguments(_ Setup, config string) []string {
	return []string{"-W", "-db", "-q", "-f", config}
}

func (haproxy) reload(root *os.Process) error { return root.Signal(syscall.SIGUSR2) }
func (haproxy) stop() syscall.Signal          { return syscall.SIGTERM }

// tlsmcpd watches its files, so a swap needs no signal.
type tlsmcpd struct{}

func (tlsmcpd) configure(s Setup, addr string) (string, error) {
	pair := certs.PairIn(s.Dir, "server")
	return write(s.Dir, "tlsmcp.toml", fmt.Sprintf(`version = 1
service_id = "bench"

[hub]
url = "none"

[listen]
address = %q
max_connections = %d
drain_timeout = "1s"

[backend]
address = %q
protocol = "http"
identity_headers = []

[mtls]
ca_file = %q
allow_all = true

[server_cert]
provider = "files"
cert_file = %q
key_file = %q

[audit]
dir = %q

[logging]
level = "warn"

[admin]
address = ""

[control]
socket = %q

[state]
dir = %q
`, addr, s.Descriptors, s.Backend, s.Authority.CAFile, pair.CertFile, pair.KeyFile,
		filepath.Join(s.Dir, "audit"), filepath.Join(s.Dir, "control.sock"), filepath.Join(s.Dir, "state")))
}

func (tlsmcpd) arguments(_ Setup, config string) []string { return []string{"--config", config} }
func (tlsmcpd) reload(*os.Process) error                  { return nil }
func (tlsmcpd) stop() syscall.Signal                      { return syscall.SIGTERM }

func write(dir, name, text string) (string, error) {
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return "", fmt.Errorf("write configuration: %w", err)
	}
	return path, nil
}
