package proxy

// Character classes of HTTP, as tables: one load per byte.

var (
	tokenByte = class(func(c byte) bool { // RFC 9110, section 5.6.2
		return isAlnum(c) || containsByte("!#$%&'*+-.^_`|~", c)
	})
	valueByte = class(func(c byte) bool { // RFC 9110, section 5.5
		return c == '\t' || (c >= ' ' && c != 0x7f)
	})
	hostByte = class(func(c byte) bool { // RFC 3986, section 3.2.2, with the port
		return isAlnum(c) || containsByte("-._~%!$&'()*+;=:[]", c)
	})
)

func class(in func(byte) bool) (t [256]bool) {
	for i := range t {
		t[i] = in(byte(i))
	}
	return t
}

func isAlnum(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

func containsByte(s string, c byte) bool {
	for i := range len(s) {
		if s[i] == c {
			return true
		}
	}
	return false
}

func isToken(b []byte) bool {
	for _, c := range b {
		if !tokenByte[c] {
			return false
		}
	}
	return len(b) > 0
}

// equalFold compares b with s, which is in lower case, ignoring ASCII case.
func equalFold[T []byte | string](b T, s string) bool {
	if len(b) != len(s) {
		return false
	}
	for i := range len(s) {
		if lower(b[i]) != s[i] {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + ('a' - 'A')
	}
	return c
}
