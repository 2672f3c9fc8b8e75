package control

import (
	"testing"

	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
	"cyphers.ai/tlsmcp/ipc/control/v1/controlv1connect"
)

// TestEveryCallIsHandled holds the handlers, and who may make which call, to the
// contract.
func TestEveryCallIsHandled(t *testing.T) {
	all := handlers(controlv1connect.UnimplementedControlServiceHandler{})
	methods := controlv1.File_control_v1_control_proto.Services().ByName("ControlService").Methods()
	for i := range methods.Len() {
		path := "/" + controlv1connect.ControlServiceName + "/" + string(methods.Get(i).Name())
		if all[path] == nil {
			t.Errorf("nobody handles %s", path)
		}
		if _, ok := needs()[path]; !ok {
			t.Errorf("nothing says who may call %s", path)
		}
	}
	if len(all) != methods.Len() {
		t.Errorf("%d handlers for %d methods", len(all), methods.Len())
	}
}
