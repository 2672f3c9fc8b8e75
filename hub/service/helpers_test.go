package service_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"
)

func stampNow() *timestamppb.Timestamp { return timestamppb.Now() }

// signedBy checks a webhook's signature as its receiver does.
func signedBy(secret, header string, body []byte) bool {
	at, sum, ok := strings.Cut(header, ",v1=")
	at, isTime := strings.CutPrefix(at, "t=")
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(at + "."))
	mac.Write(body)
	return ok && isTime && hmac.Equal([]byte(hex.EncodeToString(mac.Sum(nil))), []byte(sum))
}
