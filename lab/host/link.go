package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Bridge makes the bridge name if there is none, gives it the address and turns it on. The alias marks the
// links of one lab, so that DeleteLinks finds them. A link of that name with another alias is an error.
func Bridge(name, alias string, addr netip.Prefix) error {
	br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}
	if err := netlink.LinkAdd(br); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("making bridge %s: %w", name, err)
	}
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("finding bridge %s: %w", name, err)
	}
	if link.Attrs().Alias != "" && link.Attrs().Alias != alias {
		return fmt.Errorf("the link %s belongs to %q: remove it with `ip link delete %s`", name, link.Attrs().Alias, name)
	}
	if err := netlink.LinkSetAlias(link, alias); err != nil {
		return fmt.Errorf("labeling bridge %s: %w", name, err)
	}
	return setUp(link, addr)
}

// VethToProcess makes a pair of virtual links: one end joins the bridge, the other end is eth0 in the network
// namespace of the process.
func VethToProcess(bridge, name, alias string, pid int) error {
	br, err := netlink.LinkByName(bridge)
	if err != nil {
		return fmt.Errorf("finding bridge %s: %w", bridge, err)
	}
	veth := &netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: name, MasterIndex: br.Attrs().Index},
		PeerName:      "eth0",
		PeerNamespace: netlink.NsPid(pid),
	}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("making veth %s: %w", name, err)
	}
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("finding veth %s: %w", name, err)
	}
	if err := netlink.LinkSetAlias(link, alias); err != nil {
		return fmt.Errorf("labeling veth %s: %w", name, err)
	}
	return netlink.LinkSetUp(link)
}

// SetUp gives a link of this network namespace an address, unless that is the zero Prefix, and turns it on.
func SetUp(name string, addr netip.Prefix) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("finding link %s: %w", name, err)
	}
	return setUp(link, addr)
}

func setUp(link netlink.Link, addr netip.Prefix) error {
	if addr.IsValid() {
		if err := netlink.AddrReplace(link, &netlink.Addr{IPNet: ipNet(addr)}); err != nil {
			return fmt.Errorf("giving %s the address %s: %w", link.Attrs().Name, addr, err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("turning on %s: %w", link.Attrs().Name, err)
	}
	return nil
}

// AddAddress adds a single address to a link of this network namespace.
func AddAddress(link string, addr netip.Addr) error {
	return changeAddress(link, addr, netlink.AddrReplace)
}

// RemoveAddress removes a single address from a link of this network namespace.
func RemoveAddress(link string, addr netip.Addr) error {
	return changeAddress(link, addr, netlink.AddrDel)
}

func changeAddress(name string, addr netip.Addr, change func(netlink.Link, *netlink.Addr) error) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("finding link %s: %w", name, err)
	}
	if err := change(link, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(addr, addr.BitLen()))}); err != nil {
		return fmt.Errorf("changing address %s of %s: %w", addr, name, err)
	}
	return nil
}

// LinkRoute routes a range to a link, as if every address in it were a neighbor on that link.
func LinkRoute(link string, to netip.Prefix) error {
	l, err := netlink.LinkByName(link)
	if err != nil {
		return fmt.Errorf("finding link %s: %w", link, err)
	}
	if err := netlink.RouteReplace(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: ipNet(to), Scope: netlink.SCOPE_LINK}); err != nil {
		return fmt.Errorf("routing %s to %s: %w", to, link, err)
	}
	return nil
}

// DeleteLinks removes every link with this alias. The other end of a veth goes with it.
func DeleteLinks(alias string) error {
	links, err := LabeledLinks(alias)
	if err != nil {
		return err
	}
	for _, name := range links {
		link, err := netlink.LinkByName(name)
		if err != nil {
			continue // a veth goes with its other end
		}
		if err := netlink.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("removing link %s: %w", name, err)
		}
	}
	return nil
}

// whole asks the kernel for a list again as long as the list changed while it was read. When labs are made and
// removed at the same time, the lists of links and routes change often.
func whole[T any](list func() ([]T, error)) (all []T, err error) {
	for range 100 {
		if all, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return all, err
}

// LabeledLinks returns the names of the links of this network namespace that have the alias.
func LabeledLinks(alias string) ([]string, error) {
	links, err := whole(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("listing links: %w", err)
	}
	var names []string
	for _, l := range links {
		if l.Attrs().Alias == alias {
			names = append(names, l.Attrs().Name)
		}
	}
	return names, nil
}

// RangeTaken describes what already uses addresses of the range on this machine: a link's address, or a route
// other than the default one. It returns "" if nothing does.
func RangeTaken(r netip.Prefix) (string, error) {
	routes, err := whole(func() ([]netlink.Route, error) { return netlink.RouteList(nil, unix.AF_INET) })
	if err != nil {
		return "", fmt.Errorf("listing routes: %w", err)
	}
	for _, route := range routes {
		if route.Dst == nil {
			continue
		}
		addr, _ := netip.AddrFromSlice(route.Dst.IP.To4())
		bits, _ := route.Dst.Mask.Size()
		if dst := netip.PrefixFrom(addr, bits); bits > 0 && dst.Overlaps(r) {
			return "the route to " + dst.String(), nil
		}
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return "", fmt.Errorf("listing addresses: %w", err)
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Overlaps(r) {
			return "the address " + p.String(), nil
		}
	}
	return "", nil
}

// NFT loads rules, in nft's own language, into this network namespace. Either all of them are loaded or none.
func NFT(ctx context.Context, rules string) error {
	_, err := Run(ctx, strings.NewReader(rules), "nft", "-f", "-")
	return err
}

// Sysctl writes a kernel setting of this network namespace ("net/ipv4/ip_forward").
func Sysctl(name, value string) error {
	if err := os.WriteFile("/proc/sys/"+name, []byte(value), 0o644); err != nil {
		return fmt.Errorf("setting %s to %s: %w", name, value, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// Route routes a range through a gateway on a link. If the range is the zero Prefix, it sets the default route.
func Route(link string, to netip.Prefix, gateway netip.Addr) error {
	l, err := netlink.LinkByName(link)
	if err != nil {
		return fmt.Errorf("finding link %s: %w", link, err)
	}
	route := &netlink.Route{LinkIndex: l.Attrs().Index, Gw: gateway.AsSlice()}
	if to.IsValid() {
		route.Dst = ipNet(to)
	}
	if err := netlink.RouteReplace(route); err != nil {
		return fmt.Errorf("routing %s to %s: %w", to, gateway, err)
	}
	return nil
}

// Seal removes the default route of this network namespace. It is no error if there is none.
func Seal() error {
	routes, err := netlink.RouteList(nil, unix.AF_INET)
	if err != nil {
		return fmt.Errorf("listing routes: %w", err)
	}
	for _, route := range routes {
		if ones, _ := mask(route.Dst); ones == 0 {
			if err := netlink.RouteDel(&route); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("removing the default route: %w", err)
			}
		}
	}
	return nil
}

// mask returns the prefix length of a route's destination. It is 0 for the default route, which netlink
// shows either without a destination or with 0.0.0.0/0.
func mask(dst *net.IPNet) (ones, bits int) {
	if dst == nil {
		return 0, 0
	}
	return dst.Mask.Size()
}
