package control

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"cyphers.ai/tlsmcp/ipc/control"
	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
	"cyphers.ai/tlsmcp/ipc/control/v1/controlv1connect"
	"cyphers.ai/tlsmcp/ipc/peercred"
	"cyphers.ai/tlsmcp/ipc/problem"
)

// Role is what a caller may do.
type Role int

// The roles, each with what the one before may do.
const (
	None     Role = iota // say hello, and be told which group to join
	Viewer               // look
	Operator             // change things
)

func (r Role) String() string {
	switch r {
	case Viewer:
		return "viewer"
	case Operator:
		return "operator"
	}
	return "none"
}

// needs is the role that each call asks for.
func needs() map[string]Role {
	return map[string]Role{
		controlv1connect.ControlServiceHelloProcedure:            None,
		controlv1connect.ControlServiceGetStatusProcedure:        Viewer,
		controlv1connect.ControlServiceGetConfigProcedure:        Viewer,
		controlv1connect.ControlServiceGetCertificatesProcedure:  Viewer,
		controlv1connect.ControlServiceGetTrustProcedure:         Viewer,
		controlv1connect.ControlServiceGetHubProcedure:           Viewer,
		controlv1connect.ControlServiceGetScoreProcedure:         Viewer,
		controlv1connect.ControlServiceListConnectionsProcedure:  Viewer,
		controlv1connect.ControlServiceListAgentsProcedure:       Viewer,
		controlv1connect.ControlServiceListToolsProcedure:        Viewer,
		controlv1connect.ControlServiceSearchAuditProcedure:      Viewer,
		controlv1connect.ControlServiceExportAuditProcedure:      Viewer,
		controlv1connect.ControlServiceVerifyAuditProcedure:      Viewer,
		controlv1connect.ControlServiceWatchVerifyAuditProcedure: Viewer,
		controlv1connect.ControlServiceWatchEventsProcedure:      Viewer,
		controlv1connect.ControlServiceWatchCountersProcedure:    Viewer,
		controlv1connect.ControlServiceCloseConnectionsProcedure: Operator,
		controlv1connect.ControlServiceApproveToolsProcedure:     Operator,
		controlv1connect.ControlServiceReloadProcedure:           Operator,
		controlv1connect.ControlServiceDrainProcedure:            Operator,
		controlv1connect.ControlServiceSetLogLevelProcedure:      Operator,
	}
}

// Access says who may do what: by the user's groups, as the kernel tells them.
type Access struct {
	// Operators and Viewers are the names of groups, or "uid:N" for one user.
	Operators, Viewers []string

	// Own is the sidecar's own user. It has no role by any group, so that what
	// got hold of the sidecar, or of a child of it, cannot change what it is
	// told to do; "uid:N" among the operators says otherwise.
	Own uint32
}

// role tells the role of a user. root has every role: it could take it.
func (a *Access) role(c peercred.Cred) Role {
	name := "uid:" + strconv.FormatUint(uint64(c.UID), 10)
	switch {
	case c.UID == 0 || slices.Contains(a.Operators, name):
		return Operator
	case slices.Contains(a.Viewers, name):
		return Viewer
	case c.UID == a.Own:
		return None
	case inAny(c, a.Operators):
		return Operator
	case inAny(c, a.Viewers):
		return Viewer
	}
	return None
}

// inAny tells whether a user is in one of the groups. A group that the host does
// not have has no members. It is looked up each time: groups are made while the
// sidecar runs, and callers are few.
func inAny(c peercred.Cred, groups []string) bool {
	return slices.ContainsFunc(groups, func(name string) bool {
		g, err := user.LookupGroup(name)
		if err != nil {
			return false
		}
		gid, err := strconv.ParseUint(g.Gid, 10, 32)
		return err == nil && c.InGroup(uint32(gid))
	})
}

// Denied says what a caller may not do, and which group to join.
func (a *Access) Denied(c Caller, need Role) string {
	e := a.denied(c, need)
	return e.Detail + "; " + e.Hint
}

func (a *Access) denied(c Caller, need Role) *problem.Error {
	groups := a.Operators
	if need == Viewer {
		groups = slices.Concat(a.Viewers, a.Operators)
	}
	groups = slices.DeleteFunc(slices.Clone(groups), func(g string) bool { return strings.HasPrefix(g, "uid:") })
	hint := "run it as root"
	if len(groups) > 0 {
		hint = fmt.Sprintf("join the group %s (usermod -aG %s USER, then log in again), or run it as root", strings.Join(groups, " or "), groups[0])
	}
	return problem.New(problem.Forbidden, "not_"+need.String(), hint, "%s has the role %s here, and this needs %s", c, c.Role, need)
}

// Caller is who made a call.
type Caller struct {
	UID   uint32
	User  string // empty: the host has no name for it
	PID   int32
	Comm  string // its program, as far as it can be told
	Agent string // what the client says of the AI agent behind it
	Role  Role
}

// String is the caller for the record: "uid:1000(alice)".
func (c Caller) String() string {
	s := "uid:" + strconv.FormatUint(uint64(c.UID), 10)
	if c.User != "" {
		s += "(" + c.User + ")"
	}
	return s
}

// Message is the caller for an answer.
func (c Caller) Message() *controlv1.Caller {
	return &controlv1.Caller{Uid: c.UID, User: c.User, Pid: c.PID, Role: c.Role.String(), Agent: c.Agent}
}

type callerKey struct{}

// From is who made the call of a context.
func From(ctx context.Context) Caller {
	c, _ := ctx.Value(callerKey{}).(Caller)
	return c
}

// Mutation is a call that changes something, done or refused, for the record.
type Mutation struct {
	Caller Caller
	Method string // "Reload"
	Target string // the request, as JSON
	Err    error  // why not; nil: it was done
	Took   time.Duration
}

// guard lets in who may, and tells of every call that changes something.
type guard struct {
	access  func() *Access
	needs   map[string]Role
	mutated func(Mutation)

	mayRecord func() error
	users     userNames
}

// enter says who calls and whether they may.
func (g *guard) enter(ctx context.Context, h http.Header, procedure string) (context.Context, Caller, error) {
	cred, ok := peercred.From(ctx)
	if !ok {
		return ctx, Caller{}, problem.New(problem.Unauthenticated, "no_credentials", "", "the kernel does not say who is calling")
	}
	access := g.access()
	c := Caller{UID: cred.UID, PID: cred.PID, User: g.users.name(cred.UID), Agent: control.Agent(h), Role: access.role(cred)}
	need, known := g.needs[procedure]
	if !known {
		return ctx, c, problem.New(problem.Forbidden, "unknown_call", "", "there is no rule for %s", procedure)
	}
	if need == Operator {
		c.Comm = commOf(c.PID)
	}
	if c.Role < need {
		return ctx, c, access.denied(c, need)
	}
	if need == Operator {
		if err := control.CheckVersion(h); err != nil {
			return ctx, c, err
		}
		if err := g.mayRecord(); err != nil {
			return ctx, c, problem.New(problem.Unavailable, "audit_unavailable", "make room where audit.dir is; systemctl still stops and reloads the daemon",
				"nothing is changed that cannot be recorded: %v", err)
		}
	}
	return context.WithValue(ctx, callerKey{}, c), c, nil
}

// WrapUnary implements connect.Interceptor.
func (g *guard) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, r connect.AnyRequest) (connect.AnyResponse, error) {
		started := time.Now()
		ctx, caller, err := g.enter(ctx, r.Header(), r.Spec().Procedure)
		var res connect.AnyResponse
		if err == nil {
			res, err = next(ctx, r)
		}
		if g.needs[r.Spec().Procedure] == Operator {
			method := r.Spec().Procedure[strings.LastIndexByte(r.Spec().Procedure, '/')+1:]
			g.mutated(Mutation{Caller: caller, Method: method, Target: targetOf(r.Any()), Err: err, Took: time.Since(started)})
		}
		return res, err
	}
}

// WrapStreamingClient implements connect.Interceptor.
func (g *guard) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// WrapStreamingHandler implements connect.Interceptor. No stream changes
// anything.
func (g *guard) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		ctx, _, err := g.enter(ctx, conn.RequestHeader(), conn.Spec().Procedure)
		if err != nil {
			return err
		}
		return next(ctx, conn)
	}
}

// targetOf is a request for the record: short, on one line.
func targetOf(r any) string {
	m, ok := r.(proto.Message)
	if !ok {
		return ""
	}
	text, err := compactJSON(m)
	if err != nil || text == "{}" {
		return ""
	}
	return strings.ToValidUTF8(text[:min(len(text), 500)], "")
}

// commOf is the name of a process, as best effort: the process may be gone, and
// its number may be another's by now.
func commOf(pid int32) string {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(int(pid)) + "/comm")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(raw))
}

// userNames remembers the names of users, so that a stream of calls does not
// read the host's list of users each time.
type userNames struct {
	mu    sync.Mutex // guards what follows
	names map[uint32]userName
}

type userName struct {
	name string
	at   time.Time
}

const userNamesFor = time.Minute

func (u *userNames) name(uid uint32) string {
	u.mu.Lock()
	defer u.mu.Unlock()
	if n, ok := u.names[uid]; ok && time.Since(n.at) < userNamesFor {
		return n.name
	}
	n := userName{at: time.Now()}
	if found, err := user.LookupId(strconv.FormatUint(uint64(uid), 10)); err == nil {
		n.name = cmp.Or(found.Username, found.Name)
	}
	if u.names == nil || len(u.names) > 1000 {
		u.names = map[uint32]userName{}
	}
	u.names[uid] = n
	return n.name
}
