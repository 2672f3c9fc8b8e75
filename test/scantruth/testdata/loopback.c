// Preloaded into servers that can only listen on every address: they listen on
// loopback instead. gcc -shared -fPIC -o loopback.so loopback.c -ldl
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

int bind(int fd, const struct sockaddr *address, socklen_t length)
{
	int (*real)(int, const struct sockaddr *, socklen_t) = dlsym(RTLD_NEXT, "bind");
	struct sockaddr_storage own;
	memset(&own, 0, sizeof own);
	memcpy(&own, address, length < sizeof own ? length : sizeof own);
	if (own.ss_family == AF_INET)
		((struct sockaddr_in *)&own)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (own.ss_family == AF_INET6) {
		int only = 0;
		socklen_t n = sizeof only;
		getsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, &n);
		inet_pton(AF_INET6, only ? "::1" : "::ffff:127.0.0.1", &((struct sockaddr_in6 *)&own)->sin6_addr);
	}
	return real(fd, (struct sockaddr *)&own, length);
}
