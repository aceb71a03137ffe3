package cli

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/time/rate"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	authenticationclient "k8s.io/client-go/kubernetes/typed/authentication/v1"
	authorizationclient "k8s.io/client-go/kubernetes/typed/authorization/v1"
	"k8s.io/client-go/rest"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

const (
	// guardFresh is how long the API server is not asked again about a token that it let pass.
	guardFresh = time.Minute
	// guardStale is how long such a token goes on passing if the API server cannot be asked: metrics are needed most when something is away.
	guardStale = 10 * time.Minute
	// guardTokens bounds how many tokens are remembered. Who scrapes has one, and a new one every hour.
	guardTokens = 64
	// guardTime is how long one answer of the API server is waited for.
	guardTime = 5 * time.Second
)

// guardRate is how often the API server is asked at most, whoever sends tokens: pods reach this port, and none is to have us flood the API server.
var guardRate = rate.Every(200 * time.Millisecond)

var errAskedTooOften = errors.New("the API server has been asked about too many tokens")

// guard lets requests pass whose token the API server knows, and whose owner it allows to make them, by TokenReview and SubjectAccessReview.
//
// controller-runtime has a filter that does the same with the API server's own library. That would double our program and add 18 MB of memory on every
// node (docs/adr/0015-metrics-guard.md).
//
// It is safe for use by several goroutines.
type guard struct {
	// review asks the API server who has the token and whether they may; false is an answer, an error is none.
	review func(ctx context.Context, token, verb, path string) (standing, error)
	now    func() time.Time
	limit  *rate.Limiter

	mu     sync.Mutex
	passed map[[sha256.Size]byte]time.Time // when the API server last let it pass, by token and request
}

// standing is what the API server says of a request.
type standing int

const (
	unknownUser standing = iota
	notAllowed
	allowed
)

func newGuard(review func(ctx context.Context, token, verb, path string) (standing, error)) *guard {
	return &guard{review: review, now: time.Now, limit: rate.NewLimiter(guardRate, 10), passed: map[[sha256.Size]byte]time.Time{}}
}

// guardMetrics is a metricsserver.Options.FilterProvider.
func guardMetrics(config *rest.Config, client *http.Client) (metricsserver.Filter, error) {
	authentication, err := authenticationclient.NewForConfigAndClient(config, client)
	if err != nil {
		return nil, fmt.Errorf("making a client for TokenReviews: %w", err)
	}
	authorization, err := authorizationclient.NewForConfigAndClient(config, client)
	if err != nil {
		return nil, fmt.Errorf("making a client for SubjectAccessReviews: %w", err)
	}
	return newGuard(func(ctx context.Context, token, verb, path string) (standing, error) {
		asked := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}
		known, err := authentication.TokenReviews().Create(ctx, asked, metav1.CreateOptions{})
		if err != nil {
			return unknownUser, fmt.Errorf("asking whose token it is: %w", err)
		}
		if !known.Status.Authenticated {
			return unknownUser, nil
		}
		access := &authorizationv1.SubjectAccessReview{Spec: accessOf(known.Status.User, verb, path)}
		decided, err := authorization.SubjectAccessReviews().Create(ctx, access, metav1.CreateOptions{})
		if err != nil {
			return unknownUser, fmt.Errorf("asking what its owner may do: %w", err)
		}
		if !decided.Status.Allowed {
			return notAllowed, nil
		}
		return allowed, nil
	}).filter, nil
}

// accessOf is the question whether a user may make a request to a path.
func accessOf(user authenticationv1.UserInfo, verb, path string) authorizationv1.SubjectAccessReviewSpec {
	spec := authorizationv1.SubjectAccessReviewSpec{
		User: user.Username, UID: user.UID, Groups: user.Groups, Extra: map[string]authorizationv1.ExtraValue{},
		NonResourceAttributes: &authorizationv1.NonResourceAttributes{Path: path, Verb: verb},
	}
	for key, values := range user.Extra {
		spec.Extra[key] = authorizationv1.ExtraValue(values)
	}
	return spec
}

// filter is a metricsserver.Filter.
func (g *guard) filter(log logr.Logger, next http.Handler) (http.Handler, error) {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, ok := bearer(r)
		if !ok {
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "a bearer token of this cluster is needed", http.StatusUnauthorized)
			return
		}
		standing, err := g.ask(r.Context(), token, strings.ToLower(r.Method), r.URL.Path)
		switch {
		case errors.Is(err, errAskedTooOften):
			http.Error(w, err.Error(), http.StatusTooManyRequests)
		case err != nil:
			log.Error(err, "who asks for metrics cannot be looked up")
			http.Error(w, "the API server does not say who you are", http.StatusServiceUnavailable)
		case standing == unknownUser:
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "the API server does not know this token", http.StatusUnauthorized)
		case standing == notAllowed:
			http.Error(w, "the owner of this token may not "+strings.ToLower(r.Method)+" "+r.URL.Path, http.StatusForbidden)
		default:
			next.ServeHTTP(w, r)
		}
	}), nil
}

// bearer is the token of a request (RFC 6750).
func bearer(r *http.Request) (token string, ok bool) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	token = strings.TrimSpace(token)
	return token, strings.EqualFold(scheme, "bearer") && token != ""
}

// ask says what the API server says of a request, or has said of the same one lately.
func (g *guard) ask(ctx context.Context, token, verb, path string) (standing, error) {
	// Neither verb nor path has a zero byte in it, and the token is the rest.
	key := sha256.Sum256([]byte(verb + "\x00" + path + "\x00" + token))
	age := g.age(key)
	if age < guardFresh {
		return allowed, nil
	}
	answer, err := g.askAnew(ctx, token, verb, path)
	switch {
	case err != nil && age < guardStale:
		return allowed, nil
	case err != nil:
		return unknownUser, err
	}
	g.remember(key, answer == allowed)
	return answer, nil
}

func (g *guard) askAnew(ctx context.Context, token, verb, path string) (standing, error) {
	if !g.limit.AllowN(g.now(), 1) {
		return unknownUser, errAskedTooOften
	}
	ctx, cancel := context.WithTimeout(ctx, guardTime)
	defer cancel()
	return g.review(ctx, token, verb, path)
}

// age is for how long a token has not been asked about; more than any limit if it never passed.
func (g *guard) age(key [sha256.Size]byte) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	when, ok := g.passed[key]
	if !ok {
		return guardStale
	}
	return g.now().Sub(when)
}

func (g *guard) remember(key [sha256.Size]byte, passes bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !passes {
		delete(g.passed, key)
		return
	}
	if len(g.passed) >= guardTokens {
		g.forgetOldest()
	}
	g.passed[key] = g.now()
}

func (g *guard) forgetOldest() {
	var oldest [sha256.Size]byte
	var since time.Time
	for key, when := range g.passed {
		if since.IsZero() || when.Before(since) {
			oldest, since = key, when
		}
	}
	delete(g.passed, oldest)
}
