package proxy

// Character classes of HTTP, as tables: one load per byte.

var (
	tokenByte = class(func(c byte) bool { // RFC 9110, section 5.6.2
		return isAlnum(c) || containsByte("!#$%&'*+-.^_`|~", c)
	})
	valueByte = class(func(c byte) bool { // RFC 9110, section 5.5
		return c == '\t' || (c >= ' ' && c != 0x7f)
	})
	targetByte = class(func(c byte) bool { // RFC 9112, section 3.2, and what clients leave unencoded
		return c > ' ' && c < 0x7f && c != '#'
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

// text is what the two HTTP parsers hand over: ours bytes, x/net's strings.
type text interface{ []byte | string }

// all reports whether every byte of b is in the class.
func all[T text](b T, class *[256]bool) bool {
	for i := range len(b) {
		if !class[b[i]] {
			return false
		}
	}
	return true
}

func isToken[T text](b T) bool { return len(b) > 0 && all(b, &tokenByte) }

func validValue[T text](b T) bool { return all(b, &valueByte) }

// validHost reports whether b is a host with an optional port (RFC 9110,
// section 7.2), by its characters: no user information, no path, no list.
func validHost[T text](b T) bool { return len(b) > 0 && all(b, &hostByte) }

// equalFold compares b with s, which is in lower case, ignoring ASCII case.
func equalFold[T text](b T, s string) bool {
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
