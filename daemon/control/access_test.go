package control

import (
	"net/http"
	"os/user"
	"strconv"
	"strings"
	"testing"

	"cyphers.ai/tlsmcp/ipc/control"
	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
	"cyphers.ai/tlsmcp/ipc/peercred"
)

func TestEveryCallHasARule(t *testing.T) {
	rules := needs()
	methods := controlv1.File_control_v1_control_proto.Services().ByName("ControlService").Methods()
	for i := range methods.Len() {
		name := "/tlsmcp.control.v1.ControlService/" + string(methods.Get(i).Name())
		if _, ok := rules[name]; !ok {
			t.Errorf("%s has no rule, so nobody may call it", name)
		}
		delete(rules, name)
	}
	for name := range rules {
		t.Errorf("there is a rule for %s, which does not exist", name)
	}
}

func TestRoles(t *testing.T) {
	root, err := user.LookupGroupId("0")
	if err != nil {
		t.Skip("this host has no group 0:", err)
	}
	const own = 4711
	for name, tt := range map[string]struct {
		access Access
		cred   peercred.Cred
		want   Role
	}{
		"root may do everything":                      {Access{}, peercred.Cred{UID: 0}, Operator},
		"a stranger may do nothing":                   {Access{Operators: []string{root.Name}}, peercred.Cred{UID: 5, GID: 5}, None},
		"an operator by the primary group":            {Access{Operators: []string{root.Name}}, peercred.Cred{UID: 5, GID: 0}, Operator},
		"an operator by another group":                {Access{Operators: []string{root.Name}}, peercred.Cred{UID: 5, GID: 5, Groups: []uint32{7, 0}}, Operator},
		"a viewer":                                    {Access{Viewers: []string{root.Name}}, peercred.Cred{UID: 5, GID: 0}, Viewer},
		"the higher role counts":                      {Access{Viewers: []string{root.Name}, Operators: []string{root.Name}}, peercred.Cred{UID: 5, GID: 0}, Operator},
		"a group that does not exist has no members":  {Access{Operators: []string{"no-such-group"}}, peercred.Cred{UID: 5, GID: 0}, None},
		"the sidecar's own user has no role by group": {Access{Operators: []string{root.Name}, Own: own}, peercred.Cred{UID: own, GID: 0}, None},
		"unless it is named itself":                   {Access{Operators: []string{"uid:4711"}, Own: own}, peercred.Cred{UID: own}, Operator},
		"a user by number may look":                   {Access{Viewers: []string{"uid:12"}}, peercred.Cred{UID: 12}, Viewer},
		"a number names one user only":                {Access{Viewers: []string{"uid:12"}}, peercred.Cred{UID: 120}, None},
		"a group's name is no user's":                 {Access{Operators: []string{"uid:0"}}, peercred.Cred{UID: 5, GID: 0}, None},
	} {
		t.Run(name, func(t *testing.T) {
			if got := tt.access.role(tt.cred); got != tt.want {
				t.Errorf("the role is %v, want %v", got, tt.want)
			}
		})
	}
}

func TestWhoIsDeniedIsToldWhichGroupToJoin(t *testing.T) {
	a := Access{Operators: []string{"ops", "uid:7"}, Viewers: []string{"look"}}
	c := Caller{UID: 12, User: "alice"}
	for need, want := range map[Role]string{Viewer: "look or ops", Operator: "group ops ("} {
		if text := a.Denied(c, need); !strings.Contains(text, want) || !strings.Contains(text, "uid:12(alice)") || strings.Contains(text, "uid:7") {
			t.Errorf("for %v it says %q, want %q in it", need, text, want)
		}
	}
}

func TestVersionsOfClients(t *testing.T) {
	for version, allowed := range map[string]bool{
		"": true, strconv.Itoa(control.Version): true, "0": false, strconv.Itoa(control.Version + 1): false, "new": false,
	} {
		h := http.Header{}
		if version != "" {
			h.Set(control.VersionHeader, version)
		}
		if err := control.CheckVersion(h); (err == nil) != allowed {
			t.Errorf("version %q: %v", version, err)
		}
	}
}

func TestAnAgentsNameIsKeptShortAndPrintable(t *testing.T) {
	h := http.Header{}
	h.Set(control.AgentHeader, "claude\x1b[2J"+strings.Repeat("x", 200))
	if got := control.Agent(h); strings.ContainsRune(got, 0x1b) || len(got) != 100 {
		t.Errorf("%q", got)
	}
}
