package control

import "testing"

func TestInstances(t *testing.T) {
	for socket, name := range map[string]string{
		DefaultSocket: "", InstanceSocket("pay"): "pay", InstanceSocket("pay.v2"): "pay.v2",
		"/tmp/tlsmcp@pay/control.sock": "", "/run/tlsmcp@pay/other.sock": "", "": "",
	} {
		if got := InstanceOf(socket); got != name {
			t.Errorf("%q is the sidecar %q, want %q", socket, got, name)
		}
	}
}
