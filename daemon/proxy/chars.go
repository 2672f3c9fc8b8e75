package proxy

// charClass is a set of character classes of HTTP.
type charClass uint8

const (
	tokenChar  charClass = 1 << iota // RFC 9110, section 5.6.2
	valueChar                        // RFC 9110, section 5.5
	targetChar                       // RFC 9112, section 3.2, and what clients leave unencoded
	hostChar                         // RFC 3986, section 3.2.2, with the port
)

// charClasses has the classes of every byte: one load each.
var charClasses = classify()

func classify() (t [256]charClass) {
	for i := range t {
		c := byte(i)
		if isAlnum(c) || containsByte("!#$%&'*+-.^_`|~", c) {
			t[i] |= tokenChar
		}
		if c == '\t' || (c >= ' ' && c != 0x7f) {
			t[i] |= valueChar
		}
		if c > ' ' && c < 0x7f && c != '#' {
			t[i] |= targetChar
		}
		if isAlnum(c) || containsByte("-._~%!$&'()*+;=:[]", c) {
			t[i] |= hostChar
		}
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
func all[T text](b T, class charClass) bool {
	for i := range len(b) {
		if charClasses[b[i]]&class == 0 {
			return false
		}
	}
	return true
}

func isToken[T text](b T) bool { return len(b) > 0 && all(b, tokenChar) }

func validValue[T text](b T) bool { return all(b, valueChar) }

// validHost reports whether b is a host with an optional port (RFC 9110,
// section 7.2), by its characters: no user information, no path, no list.
func validHost[T text](b T) bool { return len(b) > 0 && all(b, hostChar) }

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
