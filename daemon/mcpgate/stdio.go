package mcpgate

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"cyphers.ai/tlsmcp/daemon/mcpgate/children"
	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/jsonrpc"
	"cyphers.ai/tlsmcp/pkg/mcpwire"
)

// stdioBackend is an MCP server that is run, a process for each session.
type stdioBackend struct {
	g       *Gateway
	nursery nursery
	work    string // the children's directories
	running atomic.Int64
	modern  *translator     // for clients of a revision without sessions
	news    context.Context // the streams that wait for news end with it
	endNews context.CancelFunc
}

// nursery runs the servers.
type nursery interface {
	Run(children.Spec) (*children.Child, error)
	Seal() <-chan struct{} // Gateway.Seal
	Close()
}

// messagesPath is where clients of revision 2024-11-05 post to.
const messagesPath = "/message"

func newStdioBackend(g *Gateway) (*stdioBackend, error) {
	b := &stdioBackend{g: g, work: filepath.Join(g.opts.StateDir, "mcp", "work")}
	b.news, b.endNews = context.WithCancel(g.base)
	// What a killed daemon's children left.
	if err := os.RemoveAll(b.work); err != nil {
		return nil, fmt.Errorf("empty the directory of MCP servers: %w", err)
	}
	if err := os.MkdirAll(b.work, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of MCP servers: %w", err)
	}
	b.modern = newTranslator(g, func(x *exchange, id string) (*session, error) { return b.start(x.agent, id, nil) })
	if socket := g.opts.Gateway.ChildSocket; socket != "" {
		b.nursery = children.NewUnits(socket)
		return b, nil
	}
	if !children.Sandbox() {
		if len(g.opts.Gateway.ChildPaths) > 0 {
			return nil, children.ErrNoLandlock
		}
		g.opts.Log.Warn("this kernel has no Landlock: MCP servers may read what tlsmcpd may read",
			event.KeyHint, "use a kernel with CONFIG_SECURITY_LANDLOCK and lsm=landlock")
	}
	command := g.opts.Helper
	if len(command) == 0 {
		self, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("find this program: %w", err)
		}
		command = []string{self}
	}
	var err error
	b.nursery, err = children.Start(command...)
	return b, err
}

func (b *stdioBackend) probe(context.Context) error {
	if socket := b.g.opts.Gateway.ChildSocket; socket != "" {
		_, err := os.Stat(socket)
		return err
	}
	_, err := exec.LookPath(b.g.opts.Backend.Command[0])
	return err
}

func (b *stdioBackend) drain() { b.endNews() }

func (b *stdioBackend) close() {
	b.endNews()
	b.nursery.Close()
	_ = os.RemoveAll(b.work)
}

var errTooManyChildren = errors.New("as many MCP servers as mcp_gateway.max_children allows are running")

// start runs a server for a new session of an agent.
func (b *stdioBackend) start(a *agent, id string, prepare func(*session)) (*session, error) {
	if b.running.Add(1) > int64(b.g.opts.Gateway.MaxChildren) {
		b.running.Add(-1)
		return nil, errTooManyChildren
	}
	dir, err := os.MkdirTemp(b.work, "s")
	if err != nil {
		b.running.Add(-1)
		return nil, err
	}
	c, err := b.nursery.Run(b.spec(a, dir))
	if err != nil {
		b.running.Add(-1)
		_ = os.RemoveAll(dir)
		return nil, err
	}
	log := b.g.opts.Log.With(event.KeyIdentity, a.name, event.KeyPID, c.PID)
	p := &pipe{g: b.g, a: a, p: &childProcess{Child: c}}
	// The session's end ends the child, and the child's end the session.
	b.g.work.Go(func() { logStderr(log, c.Stderr) })
	b.g.work.Go(func() {
		<-c.Done()
		c.Close()
		_ = os.RemoveAll(dir)
		b.running.Add(-1)
		log.Info("mcp server ended", event.KeyDetail, c.How())
	})
	s, err := b.g.openSession(id, a, func(s *session) {
		s.pipe, p.s = p, s
		if prepare != nil {
			prepare(s)
		}
	})
	if err != nil {
		c.Kill()
		return nil, err
	}
	log.Info("mcp server started", event.KeySession, s.digest())
	b.g.work.Go(p.run)
	return s, nil
}

// spec is what is run for an agent: a clean environment, with what the
// configuration says and who the agent is.
func (b *stdioBackend) spec(a *agent, dir string) children.Spec {
	g := b.g.opts.Gateway
	s := children.Spec{Argv: b.g.opts.Backend.Command, Dir: dir, Memory: uint64(g.ChildMemory)}
	env := map[string]string{
		"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": dir, "TMPDIR": dir, "LANG": "C.UTF-8",
	}
	for name, value := range b.g.opts.Backend.Env {
		env[name] = value
	}
	for _, h := range b.g.opts.Backend.IdentityHeaders {
		if h == config.HeaderXTlsmcp && a.peer != nil {
			env["TLSMCP_IDENTITY"], env["TLSMCP_SERIAL"], env["TLSMCP_FINGERPRINT"] = a.name, a.peer.Serial, "sha256:"+a.peer.Fingerprint
		}
	}
	for name, value := range env {
		s.Env = append(s.Env, name+"="+value)
	}
	for _, p := range g.ChildPaths {
		s.Paths = append(s.Paths, children.Path{Path: p.Path, Write: p.Write})
	}
	return s
}

// childProcess is a child as the end of a pipe.
type childProcess struct {
	*children.Child
	once sync.Once
}

func (c *childProcess) Read(p []byte) (int, error)         { return c.Stdout.Read(p) }
func (c *childProcess) Write(p []byte) (int, error)        { return c.Stdin.Write(p) }
func (c *childProcess) SetWriteDeadline(t time.Time) error { return c.Stdin.SetWriteDeadline(t) }
func (c *childProcess) hangUp()                            { c.once.Do(func() { _ = c.Stdin.Close() }) }
func (c *childProcess) kill()                              { c.Kill() }
func (c *childProcess) done() <-chan struct{}              { return c.Done() }
func (c *childProcess) how() string                        { return c.How() }

func (b *stdioBackend) post(x *exchange) {
	switch r := checkRevision(x.r.Header.Get(mcpwire.HeaderVersion), x.session); {
	case r != nil && !x.modern:
		x.refuseCalls(r)
	case x.modern && isSupported(x.sent[0]):
		b.modern.post(x)
	case x.modern:
		x.finish(http.StatusBadRequest, unsupported(x.sent[0]))
	case x.session != nil:
		x.converse(x.session.pipe)
	case x.sent[0].Method == "initialize" && x.sent[0].Kind == jsonrpc.Request:
		s, err := b.start(x.agent, rand.Text(), nil)
		if err != nil {
			x.notStarted(err)
			return
		}
		for _, c := range x.calls {
			c.record.Session = s.digest()
			x.pending.drop(c)
			s.calls.add(c)
		}
		x.session, x.pending = s, s.calls
		ctx, cancel := x.context()
		defer cancel()
		x.r = x.r.WithContext(ctx)
		x.w.Header().Set(mcpwire.HeaderSession, s.id)
		x.converse(s.pipe)
	default:
		x.refuseCalls(refuse(event.MCPSession, jsonrpc.CodeInvalidRequest, http.StatusBadRequest, "begin a session with initialize, and name it with %s", mcpwire.HeaderSession))
	}
}

// refuseCalls refuses what the policy let pass.
func (x *exchange) refuseCalls(r *refusal) {
	for _, c := range x.calls {
		x.pending.drop(c)
		c.refused(r)
	}
	var id jsonrpc.ID
	if x.sent[0].Kind == jsonrpc.Request {
		id = x.sent[0].ID
	}
	x.json(r.status, r.answer(id))
}

// supported are the revisions that a server over standard input and output can
// be spoken to in.
var supported = []string{"2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"}

// checkRevision refuses a request that says it is of a revision that is not known
// here (2025-06-18, Streamable HTTP, protocol version header). A server may have
// agreed on another with its client.
func checkRevision(said string, s *session) *refusal {
	if said == "" || slices.Contains(supported, said) || s != nil && said == s.protocolVersion() {
		return nil
	}
	return refuse(event.MCPHeaders, jsonrpc.CodeInvalidRequest, http.StatusBadRequest, "%s is %q, and what is known here is %s and %s",
		mcpwire.HeaderVersion, said, mcpwire.RevisionModern, strings.Join(supported, ", "))
}

// isSupported reports whether a client of a revision without sessions speaks
// the one that is known here.
func isSupported(m *jsonrpc.Message) bool {
	return mcpwire.VersionOf(m) == mcpwire.RevisionModern || m.Kind != jsonrpc.Request
}

// finish answers the one call of an exchange with an answer of the gateway's.
func (x *exchange) finish(status int, answer []byte) {
	if m, err := jsonrpc.ParseServer(answer); err == nil && len(x.calls) == 1 {
		x.pending.drop(x.calls[0])
		x.calls[0].answered(m)
	}
	x.json(status, answer)
}

// unsupported tells a client of a revision that is not known here what to use.
func unsupported(m *jsonrpc.Message) []byte {
	data := []byte(`{"supported":["` + mcpwire.RevisionModern + `","` + strings.Join(supported, `","`) + `"],"requested":`)
	data = append(jsonrpc.AppendText(data, mcpwire.VersionOf(m)), '}')
	return jsonrpc.AppendError(nil, m.ID, jsonrpc.CodeUnsupportedVersion, "Unsupported protocol version", data)
}

// notStarted answers when no server could be started, or the agent may not be in
// any more by the time that it was.
func (x *exchange) notStarted(err error) {
	if asCut(err) != nil {
		x.fail(err)
		return
	}
	r := refuse(event.MCPServerGone, jsonrpc.CodeUnavailable, http.StatusOK, "%s", event.MCPServerGone.Sentence())
	if errors.Is(err, errTooManyChildren) || errors.Is(err, errTooMany) {
		r = refuse(event.MCPTooMany, jsonrpc.CodeUnavailable, http.StatusOK, "%s", event.MCPTooMany.Sentence())
	}
	x.g.opts.Log.Warn("mcp server not started", event.KeyConn, x.connID, event.KeyIdentity, x.name, event.KeyError, err.Error())
	for _, c := range x.calls {
		x.pending.drop(c)
		c.refused(r)
	}
	x.json(r.status, r.answer(x.sent[0].ID))
}

// converse sends what was posted to a server and brings back what it says, as
// one answer when that is all, else as a stream.
func (x *exchange) converse(p *pipe) {
	q := newQueue()
	if x.legacy() {
		q = x.session.out
	}
	var messages [][]byte
	for _, m := range x.sent {
		messages = append(messages, m.Raw)
	}
	for _, c := range x.calls {
		c.setOut(q)
	}
	if !x.legacy() && len(x.calls) > 0 {
		p.join(q)
		defer p.leave(q)
	}
	if err := p.send(messages...); err != nil {
		x.unanswered(err)
		return
	}
	for _, m := range x.sent {
		if m.Method == "notifications/cancelled" {
			x.pending.giveUp(jsonrpc.ID(m.Param("requestId")))
		}
	}
	switch {
	case x.legacy():
		x.calls = nil // the answers come on the session's stream
		x.w.WriteHeader(http.StatusAccepted)
	case len(x.calls) > 0:
		x.relayQueue(q)
	case len(x.refused) > 0: // the others were taken
		x.json(http.StatusOK, batchOf(x.refused))
	default:
		x.w.WriteHeader(http.StatusAccepted)
	}
}

// beginAfter is how long an answer is awaited before a stream is begun, so that
// nobody in between takes a long call for a dead one.
const beginAfter = 10 * time.Second

// relayQueue writes what the server says until every call is answered.
func (x *exchange) relayQueue(q *queue) {
	stop := context.AfterFunc(x.r.Context(), q.close)
	defer stop()
	streams := strings.Contains(x.r.Header.Get("Accept"), "text/event-stream")
	left := len(x.calls)
	var out *sseWriter
	defer func() {
		if out != nil {
			out.close()
		}
	}()
	begin := func() {
		out = startSSE(x.w)
		for _, answer := range x.refused {
			_ = out.write(mcpwire.AppendMessage(nil, answer))
		}
	}
	for left > 0 {
		ctx, cancel := x.r.Context(), context.CancelFunc(func() {})
		if out == nil && streams {
			ctx, cancel = context.WithTimeout(ctx, beginAfter)
		}
		m, ok := q.get(ctx)
		cancel()
		if !ok && errors.Is(ctx.Err(), context.DeadlineExceeded) && x.r.Context().Err() == nil {
			begin()
			continue
		}
		if !ok {
			break
		}
		if m.last {
			left--
		}
		switch {
		case m.message == nil: // a call that was given up has no answer
			continue
		case out == nil && m.last && left == 0 && !x.batch:
			x.json(http.StatusOK, m.message)
			return
		case out == nil && !streams:
			continue // it takes no stream: only the answer is for it
		case out == nil:
			begin()
		}
		if out.write(mcpwire.AppendMessage(nil, m.message)) != nil {
			panic(http.ErrAbortHandler)
		}
	}
	if left > 0 {
		x.brokenOff(out)
		return
	}
	if out == nil { // every call was given up
		startSSE(x.w).close()
	}
}

// brokenOff ends an exchange whose calls will not all be answered.
func (x *exchange) brokenOff(out *sseWriter) {
	why := x.why()
	switch {
	case isGone(why):
		panic(http.ErrAbortHandler)
	case out == nil:
		x.fail(why)
	default:
		for _, answer := range x.failures(why) {
			_ = out.write(mcpwire.AppendMessage(nil, answer))
		}
	}
}

// get opens the stream of a session, or begins a session of revision
// 2024-11-05.
func (b *stdioBackend) get(a *agent, w http.ResponseWriter, r *http.Request, s *session) {
	switch wrong := checkRevision(r.Header.Get(mcpwire.HeaderVersion), s); {
	case wrong != nil && s != nil:
		(&exchange{agent: a, w: w, r: r, session: s}).refuseWhole(wrong)
	case s != nil && !s.legacy:
		q := newQueue()
		if !s.pipe.listen(q) {
			a.plain(w, http.StatusConflict, "the session has a stream already")
			return
		}
		defer s.pipe.leave(q)
		b.relayNews(w, r, q, "")
	case s == nil && r.URL.Path == legacyPath:
		b.serveLegacy(a, w, r)
	default:
		w.Header().Set("Allow", "POST")
		a.plain(w, http.StatusMethodNotAllowed, "a stream belongs to a session, and the request names none")
	}
}

func (b *stdioBackend) serveLegacy(a *agent, w http.ResponseWriter, r *http.Request) {
	x := &exchange{agent: a, w: w, r: r, pending: newPending()}
	address := messagesPath + "?sessionId=" + rand.Text()
	q := newQueue()
	s, err := b.start(a, endpointPrefix+address, func(s *session) {
		s.legacy, s.out = true, q
		s.push = func(messages [][]byte) {
			for _, m := range messages {
				q.put(queued{m, true})
			}
		}
	})
	if err != nil {
		b.g.opts.Log.Warn("mcp server not started", event.KeyConn, a.connID, event.KeyIdentity, a.name, event.KeyError, err.Error())
		x.refuseWhole(refuse(event.MCPServerGone, jsonrpc.CodeUnavailable, http.StatusServiceUnavailable, "%s", event.MCPServerGone.Sentence()))
		return
	}
	defer s.stream()()
	defer b.g.endSession(s, errSessionOver)
	s.pipe.listen(q)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.ctx, func() {
		time.Sleep(10 * time.Millisecond) // what the last calls are told goes first
		cancel()
	})()
	b.relayNews(w, r.WithContext(ctx), q, "event: endpoint\ndata: "+address+"\n\n")
}

// relayNews writes a queue to a stream until either ends.
func (b *stdioBackend) relayNews(w http.ResponseWriter, r *http.Request, q *queue, first string) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(b.news, cancel)()
	out := startSSE(w)
	defer out.close()
	if first != "" {
		_ = out.write([]byte(first))
	}
	for {
		m, ok := q.get(ctx)
		if !ok {
			return
		}
		if m.message != nil && out.write(mcpwire.AppendMessage(nil, m.message)) != nil {
			return
		}
	}
}

func (b *stdioBackend) remove(_ *agent, w http.ResponseWriter, _ *http.Request, s *session) {
	b.g.endSession(s, errSessionOver)
	w.WriteHeader(http.StatusNoContent)
}

func (b *stdioBackend) ended(s *session) {
	b.modern.forget(s)
	s.pipe.ended()
}
