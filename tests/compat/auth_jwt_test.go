package compat

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Tokens that are signed: by each kind of key, and what makes them old.
func TestSignedTokens(t *testing.T) {
	private, public := map[string]string{}, map[string]string{}
	folder := t.TempDir()
	write := func(name, kind string, der []byte, err error) string {
		must(t, err)
		path := filepath.Join(folder, name)
		must(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
		return path
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	private["RS"] = write("rs.key", "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey), nil)
	der, err := x509.MarshalPKIXPublicKey(&rsaKey.PublicKey)
	public["RS"] = write("rs.pub", "PUBLIC KEY", der, err)
	private["PS"], public["PS"] = private["RS"], public["RS"]
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	der, err = x509.MarshalECPrivateKey(ecKey)
	private["ES"] = write("es.key", "EC PRIVATE KEY", der, err)
	der, err = x509.MarshalPKIXPublicKey(&ecKey.PublicKey)
	public["ES"] = write("es.pub", "PUBLIC KEY", der, err)
	edPublic, edKey, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	der, err = x509.MarshalPKCS8PrivateKey(edKey)
	private["Ed"] = write("ed.key", "PRIVATE KEY", der, err)
	der, err = x509.MarshalPKIXPublicKey(edPublic)
	public["Ed"] = write("ed.pub", "PUBLIC KEY", der, err)
	private["HS"] = write("hs.key", "SECRET", []byte("secret"), nil)

	for _, method := range []string{"RS256", "PS384", "ES256", "EdDSA", "HS512"} {
		t.Run(method, func(t *testing.T) {
			options := "jwt,sign-method=" + method + ",priv-key=" + private[method[:2]] + ",ttl=3s"
			if method[:2] != "HS" {
				options += ",pub-key=" + public[method[:2]]
			}
			endpoint, ctx := guarded(t, "--bcrypt-cost=4", "--auth-token="+options)
			root := as(t, endpoint, "root", "root")
			token, kv := logIn(t, ctx, endpoint, "alice", "alice")
			parts := strings.Split(token, ".")
			equal(t, "parts of a token", len(parts), 3)
			header, err := base64.RawURLEncoding.DecodeString(parts[0])
			must(t, err)
			equal(t, "header", string(header), `{"alg":"`+method+`","typ":"JWT"}`)
			claims, err := base64.RawURLEncoding.DecodeString(parts[1])
			must(t, err)
			if !regexp.MustCompile(`^\{"exp":\d+,"revision":7,"username":"alice"\}$`).Match(claims) {
				t.Fatalf("claims %s", claims)
			}
			_, err = kv.Range(with(ctx, "token", token), get)
			must(t, err)
			_, err = kv.Range(with(ctx, "authorization", "Bearer "+token), get)
			must(t, err)
			_, err = kv.Range(with(ctx, "token", token), &pb.RangeRequest{Key: []byte("b")})
			refused(t, err, denied)
			_, err = kv.Range(with(ctx, "token", parts[0]+"."+parts[1]+"."+parts[2][1:]), get)
			refused(t, err, invalidToken)
			_, err = kv.Range(ctx, get)
			refused(t, err, noUser)

			// Any change of users and roles makes it old; a client logs in anew by itself.
			alice := as(t, endpoint, "alice", "alice")
			_, err = alice.Get(ctx, "a")
			must(t, err)
			_, err = root.RoleAdd(ctx, "other")
			must(t, err)
			_, err = kv.Range(with(ctx, "token", token), get)
			refused(t, err, oldRevision)
			_, err = kv.Put(with(ctx, "token", token), &pb.PutRequest{Key: []byte("a")})
			refused(t, err, oldRevision)
			_, err = alice.Get(ctx, "a")
			must(t, err)
			token, _ = logIn(t, ctx, endpoint, "alice", "alice")
			time.Sleep(4 * time.Second)
			_, err = kv.Range(with(ctx, "token", token), get)
			refused(t, err, invalidToken)
		})
	}

	t.Run("who can only verify", func(t *testing.T) {
		endpoint, ctx := guarded(t, "--bcrypt-cost=4", "--auth-token=jwt,sign-method=RS256,pub-key="+public["RS"])
		auth := pb.NewAuthClient(plain(t, endpoint))
		_, err := auth.Authenticate(ctx, &pb.AuthenticateRequest{Name: "alice", Password: "alice"})
		refused(t, err, "rpc error: code = Unknown desc = auth: token signing attempted with verify-only key")
	})
}
