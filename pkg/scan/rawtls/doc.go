// Package rawtls asks a server what crypto/tls cannot ask: with SSL 2.0 and
// 3.0, with suites and groups that Go never had, with one extension more or
// less than a sound client sends. It writes a ClientHello byte by byte, reads
// what the server says in the clear, and goes no further. No key is agreed and
// no request is made, so there is nothing to get wrong but the reading, and the
// reading is fuzzed: every length is checked against what is there.
//
// For what TLS 1.3 says encrypted (certificates, session tickets, the alert that
// comes late) there is [Tap]: a connection that keeps what the server sent
// while crypto/tls shakes hands over it, and opens it afterwards with the secrets
// that crypto/tls logs for the purpose.
//
// Nothing here judges. A refusal is an answer too: see [Flight.Refused].
package rawtls
