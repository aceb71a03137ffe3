package apiserver

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/ringfence-io/ringfence/lab/host"
)

// proxy carries TCP connections from a loopback port of the caller's network into a host's. A socket belongs to the
// namespace in which it was made, so that only the dialling happens over there.
type proxy struct {
	listener net.Listener
	host     *host.Host
	target   netip.AddrPort

	mu    sync.Mutex
	conns map[net.Conn]struct{} // nil once closed
	all   sync.WaitGroup
}

// newProxy listens on a free loopback port.
func newProxy(h *host.Host, target netip.AddrPort) (*proxy, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listening for the API server on loopback: %w", err)
	}
	p := &proxy{listener: listener, host: h, target: target, conns: map[net.Conn]struct{}{}}
	p.all.Go(p.accept)
	return p, nil
}

// addr is where it listens.
func (p *proxy) addr() string { return p.listener.Addr().String() }

// close ends the proxy and every connection through it.
func (p *proxy) close() {
	_ = p.listener.Close()
	p.mu.Lock()
	for conn := range p.conns {
		_ = conn.Close()
	}
	p.conns = nil
	p.mu.Unlock()
	p.all.Wait()
}

func (p *proxy) accept() {
	for {
		conn, err := p.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors, or the client is gone already
			time.Sleep(10 * time.Millisecond)
			continue
		}
		p.all.Go(func() { p.carry(conn) })
	}
}

// carry copies both ways until both ends have finished.
func (p *proxy) carry(client net.Conn) {
	defer p.forget(client)
	if !p.remember(client) {
		return
	}
	var server net.Conn
	err := p.host.Do(func() (err error) {
		server, err = net.DialTimeout("tcp", p.target.String(), 5*time.Second)
		return err
	})
	if err != nil {
		return // the client sees its connection closed, as with any server that is away
	}
	defer p.forget(server)
	if !p.remember(server) {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { pour(server, client) })
	both.Go(func() { pour(client, server) })
	both.Wait()
}

// pour copies one way and passes the end of the stream on.
func pour(to, from net.Conn) {
	if _, err := io.Copy(to, from); err != nil {
		_ = from.Close() // a broken connection has no other half worth keeping
		_ = to.Close()
		return
	}
	if half, ok := to.(*net.TCPConn); ok {
		_ = half.CloseWrite()
	}
}

// remember reports whether the proxy is still open, and has the connection closed with it.
func (p *proxy) remember(conn net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conns == nil {
		return false
	}
	p.conns[conn] = struct{}{}
	return true
}

func (p *proxy) forget(conn net.Conn) {
	_ = conn.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, conn)
}
