package procnet

import (
	"encoding/binary"
	"testing"
)

func TestTheKernelsWayToWriteAnAddress(t *testing.T) {
	little := binary.NativeEndian.Uint16([]byte{1, 0}) == 1
	for text, want := range map[string]string{
		"0100007F:1F90":                         "127.0.0.1:8080",
		"00000000000000000000000001000000:1F90": "[::1]:8080",
		"0000000000000000FFFF00000100007F:1F90": "127.0.0.1:8080",
	} {
		got, err := ParseAddrPort(text)
		if err != nil || little && got.String() != want {
			t.Errorf("%s: %s, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "0100007F", "0100007:1F90", "zz00007F:1F90", "0100007F:90", "01007F:1F90"} {
		if got, err := ParseAddrPort(text); err == nil {
			t.Errorf("%q: %s", text, got)
		}
	}
}
